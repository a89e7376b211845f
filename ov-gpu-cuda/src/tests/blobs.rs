//! Blobs: what is exported runs elsewhere as it ran here, and damage is an error.

use ov_core::{
    CompiledModel,
    blob::{Blob, SectionKind},
};

use super::{vertical::mlp, *};

fn exported(compiled: &CompiledModel) -> Vec<u8> {
    let mut bytes = Vec::new();
    compiled.export(&mut bytes).expect("exports");
    bytes
}

fn import(machine: &Machine, bytes: &[u8]) -> ov_core::Result<CompiledModel> {
    machine.core.import_model_from_stream(&mut &bytes[..], "CUDA", &exact())
}

fn outputs(compiled: &CompiledModel) -> Vec<Tensor> {
    let mut request = compiled.create_infer_request().expect("memory");
    request.run(&[noise(&[3, 20], 9)]).expect("runs")
}

/// A machine whose GPUs have this capability, as 90 for 9.0.
fn with_capability(
    capability: i64,
    compiler: Option<&'static dyn crate::compile::Compiler>,
) -> Option<Machine> {
    let fake = FakeCuda::new()?;
    fake.set("capability", capability);
    let api = Api::open(fake.path(), &[]).expect("the driver has every function");
    let plugin = CudaPlugin::with(Driver::start(api).expect("starts"), compiler);
    let core = Core::with_plugins([Arc::new(plugin) as _]).expect("one plugin");
    Some(Machine { core, fake: Some(fake) })
}

/// A machine that cannot compile kernels.
fn driver_only(capability: i64) -> Option<Machine> {
    with_capability(capability, None)
}

#[test]
fn blobs_are_the_same_twice_and_run_where_only_a_driver_is() {
    let Some(machine) = faked() else { return };
    let compile = || machine.core.compile_model(mlp(), "CUDA", &exact()).expect("compiles");
    let compiled = compile();
    let bytes = exported(&compiled);
    assert!(bytes == exported(&compile()), "compiling twice gives one blob");
    let expected = outputs(&compiled);
    assert_eq!(outputs(&import(&machine, &bytes).expect("imports")), expected);
    for capability in [90, 100] {
        let Some(other) = driver_only(capability) else { return };
        let imported = import(&other, &bytes).expect("imports without a compiler");
        assert_eq!(outputs(&imported), expected, "{capability}");
    }
    let Some(old) = driver_only(80) else { return };
    let error = import(&old, &bytes).expect_err("the code is for newer GPUs").to_string();
    assert!(error.contains("sm_90") && error.contains("sm_80"), "{error}");
}

#[test]
fn code_that_does_not_wait_itself_does_not_start_early() {
    let Some(compiler) = HostCompiler::get() else { return };
    for (made_for, runs_on, early) in
        [(80, 80, false), (80, 90, false), (90, 90, true), (90, 100, true)]
    {
        let Some(machine) = with_capability(made_for, Some(compiler)) else { return };
        let compiled = machine.core.compile_model(mlp(), "CUDA.0", &exact()).expect("compiles");
        let (bytes, expected) = (exported(&compiled), outputs(&compiled));
        let Some(other) = driver_only(runs_on) else { return };
        let got = outputs(&import(&other, &bytes).expect("imports"));
        assert_eq!(got, expected, "{made_for} on {runs_on}");
        let edges = other.fake().get("programmatic_edges");
        assert_eq!(edges > 0, early, "{made_for} on {runs_on}: {edges} edges");
    }
}

#[test]
fn gpus_that_are_too_old_are_left_out_with_a_reason() {
    let Some(machine) = with_capability(75, None) else { return };
    assert_eq!(machine.core.available_devices(), Vec::<String>::new());
    for device in ["CUDA", "CUDA.1"] {
        let error = machine.core.compile_model(mlp(), device, &exact()).expect_err("is hidden");
        assert!(error.to_string().contains("7.5") && error.to_string().contains("8.0"), "{error}");
    }
}

#[test]
fn without_a_compiler_compiling_says_what_to_install() {
    let Some(machine) = driver_only(90) else { return };
    let mut m = Model::new("m");
    let x = parameter(&mut m, "x", &[2, 5]);
    let y = m.add(ov_core::op::activation::Relu {}, &[x], "y").expect("valid");
    m.add_output("y", y);
    let error = machine.core.compile_model(m, "CUDA", &exact()).expect_err("no NVRTC");
    assert!(error.to_string().contains("nvidia-cuda-nvrtc"), "{error}");
}

#[test]
fn damaged_blobs_are_errors_or_harmless() {
    let Some(machine) = faked() else { return };
    let compiled = machine.core.compile_model(mlp(), "CUDA.0", &exact()).expect("compiles");
    let bytes = exported(&compiled);
    let blob = Blob::from_bytes(bytes.clone().into()).expect("sound");
    let mut refused = 0;
    for kind in [SectionKind::Plan, SectionKind::Meta] {
        let section = blob.find(kind).expect("there");
        for at in (section.offset..section.offset + section.len).step_by(3) {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x41;
            refused += usize::from(import(&machine, &damaged).is_err());
        }
    }
    assert!(refused > 20, "{refused} of the damages were seen");
    let code = blob.find(SectionKind::Code).expect("there");
    for at in code.offset..code.offset + 48 {
        let mut damaged = bytes.clone();
        damaged[at] = 0xff;
        drop(import(&machine, &damaged));
    }
    for len in (0..bytes.len()).step_by(bytes.len() / 40) {
        assert!(import(&machine, &bytes[..len]).is_err(), "{len}");
    }
}
