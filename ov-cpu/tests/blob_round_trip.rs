//! Export and import give the same outputs bit for bit, compiling twice gives the same bytes, and damaged or foreign
//! blobs are refused.

use ov_core::{
    Core, ElementType, Model, PropertyMap, Tensor,
    op::{activation::Elu, matmul::MatMul},
};
use ov_cpu as _;

fn model() -> Model {
    let mut m = Model::new("blob");
    let x = m.add_parameter("x", ElementType::F32, [5, 17]).expect("valid");
    let weights: Vec<f32> = (0..17 * 9).map(|i| (i as f32).sin()).collect();
    let w = m.add_constant(Tensor::from_vec([17, 9], weights).expect("fits"), "w");
    let y = m.add(MatMul::default(), &[x, w], "product").expect("valid");
    let y = m.add(Elu { alpha: 0.5 }, &[y], "elu").expect("valid");
    m.add_output("y", y);
    m
}

fn infer(compiled: &ov_core::CompiledModel) -> Vec<f32> {
    let mut request = compiled.create_infer_request().expect("memory");
    let x: Vec<f32> = (0..5 * 17).map(|i| (i as f32).cos()).collect();
    request.set_input("x", Tensor::from_vec([5, 17], x).expect("fits")).expect("fits");
    request.infer().expect("runs");
    request.output("y").expect("there").as_slice::<f32>().expect("f32").to_vec()
}

#[test]
fn an_imported_model_gives_the_same_bits() {
    let core = Core::new().expect("devices");
    let compiled = core.compile_model(model(), "CPU", &PropertyMap::new()).expect("compiles");
    let dir = tempfile::tempdir().expect("temporary folder");
    let path = dir.path().join("model.blob");
    let mut bytes = Vec::new();
    compiled.export(&mut bytes).expect("exports");
    std::fs::write(&path, &bytes).expect("written");
    let imported = core.compile_model(path.as_path(), "CPU", &PropertyMap::new()).expect("imports");
    assert_eq!(infer(&compiled), infer(&imported));

    let again = core.compile_model(model(), "CPU", &PropertyMap::new()).expect("compiles");
    let mut second = Vec::new();
    again.export(&mut second).expect("exports");
    assert_eq!(bytes, second, "compiling twice gives the same bytes");
}

#[test]
fn truncated_blobs_are_refused() {
    let core = Core::new().expect("devices");
    let compiled = core.compile_model(model(), "CPU", &PropertyMap::new()).expect("compiles");
    let mut bytes = Vec::new();
    compiled.export(&mut bytes).expect("exports");
    let dir = tempfile::tempdir().expect("temporary folder");
    let path = dir.path().join("model.blob");
    for keep in [0, 1, 100, 4095, 4096, bytes.len() / 2, bytes.len() - 1] {
        std::fs::write(&path, &bytes[..keep]).expect("written");
        let result = core.compile_model(path.as_path(), "CPU", &PropertyMap::new());
        assert!(result.is_err(), "{keep} bytes of {} were taken", bytes.len());
    }
}
