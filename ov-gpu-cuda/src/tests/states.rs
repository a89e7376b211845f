//! Variables stay in the memory of the GPU.

use ov_core::{
    CancelToken, Dimension, InferRequest, PartialShape,
    op::{
        arithmetic::{Add, Multiply},
        concat::Concat,
        scatter::{CacheMode, TensorScatter},
    },
    plugin::DeviceModel,
    property::{
        hint::PerformanceMode,
        streams::{self, Streams},
    },
};

use super::*;
use crate::{
    config::CudaConfig,
    device_model::{CudaModel, compile_blob},
};

/// What crossed the bus: to the GPU, to the host, from GPU to GPU; and what was copied within one.
fn copied(machine: &Machine) -> [i64; 4] {
    ["host_to_device", "device_to_host", "peer", "within_device"].map(|c| machine.fake().get(c))
}

#[track_caller]
fn since(machine: &Machine, before: [i64; 4]) -> [i64; 4] {
    let now = copied(machine);
    [0, 1, 2, 3].map(|i| now[i] - before[i])
}

fn request(machine: &Machine, model: &Model, device: &str) -> InferRequest {
    let compiled = machine.core.compile_model(model.clone(), device, &exact()).expect("compiles");
    assert!(compiled.runtime_nodes().iter().all(|n| n.kernel != "host"));
    compiled.create_infer_request().expect("memory")
}

#[track_caller]
fn run(machine: &Machine, request: &mut InferRequest, inputs: &[Tensor]) -> Vec<Tensor> {
    request.run(inputs).unwrap_or_else(|e| panic!("{e}; {}", machine.message()))
}

fn numbers(tensor: &Tensor) -> Vec<f32> {
    tensor.as_slice::<f32>().expect("f32").to_vec()
}

const WIDTH: usize = 64;

/// `v += x`, and the sum over all of it is given: what crosses the bus besides the state shows.
fn accumulator() -> Model {
    let mut m = Model::new("sum");
    let x = parameter(&mut m, "x", &[1, 1]);
    let shape = PartialShape::from(&Shape::new(&[WIDTH, WIDTH]));
    let v = m.add_variable("v", ElementType::F32, shape, None).expect("valid");
    let next = m.add(Add::default(), &[v, x], "next").expect("valid");
    let axes = m.add_constant(Tensor::from_i64s(&[0, 1]), "axes");
    let op = ov_core::op::reduction::ReduceMean { keep_dims: false };
    let y = m.add(op, &[next, axes], "y").expect("valid");
    m.add_output("y", y);
    m.add_variable_output(0, next).expect("fits");
    m
}

fn one() -> Tensor {
    Tensor::from_vec([1, 1], vec![1.0f32]).expect("fits")
}

#[test]
fn only_inputs_and_outputs_cross_the_bus() {
    let Some(machine) = faked() else { return };
    let mut request = request(&machine, &accumulator(), "CUDA.0");
    let before = copied(&machine);
    for round in 1..5 {
        assert_eq!(numbers(&run(&machine, &mut request, &[one()])[0]), [round as f32]);
    }
    assert_eq!(since(&machine, before), [4 * 4, 4 * 4, 0, 0]);
    let before = copied(&machine);
    assert_eq!(numbers(&request.state("v").expect("is there")), [4.0; WIDTH * WIDTH]);
    let bytes = (WIDTH * WIDTH * 4) as i64;
    assert_eq!(since(&machine, before), [0, bytes, 0, 0]);
    let set = Tensor::from_vec([WIDTH, WIDTH], vec![7.0f32; WIDTH * WIDTH]).expect("fits");
    request.set_state("v", &set).expect("fits");
    assert_eq!(since(&machine, before), [0, bytes, 0, 0]);
    assert_eq!(numbers(&run(&machine, &mut request, &[one()])[0]), [8.0]);
    assert_eq!(since(&machine, before), [bytes + 4, bytes + 4, 0, 0]);
    request.reset_states().expect("stateful");
    assert_eq!(numbers(&request.state("v").expect("is there")), [0.0; WIDTH * WIDTH]);
    assert_eq!(numbers(&run(&machine, &mut request, &[one()])[0]), [1.0]);
    assert_eq!(since(&machine, before), [bytes + 8, bytes + 8, 0, 0]);
    assert_eq!(machine.fake().get("graph_execs"), 2, "one for each of two places");
}

#[test]
fn requests_have_states_of_their_own_and_free_them() {
    let Some(machine) = faked() else { return };
    let properties = exact()
        .with(hint::PERFORMANCE_MODE, PerformanceMode::Throughput)
        .with(streams::NUM_STREAMS, Streams::Count(2));
    let compiled =
        machine.core.compile_model(accumulator(), "CUDA.0", &properties).expect("compiles");
    let allocations = machine.fake().get("allocations");
    std::thread::scope(|scope| {
        for thread in 1..5u16 {
            let (compiled, machine) = (&compiled, &machine);
            scope.spawn(move || {
                let mut request = compiled.create_infer_request().expect("memory");
                let x = Tensor::from_vec([1, 1], vec![f32::from(thread)]).expect("fits");
                for round in 1..6u16 {
                    let y = run(machine, &mut request, std::slice::from_ref(&x));
                    assert_eq!(numbers(&y[0]), [f32::from(thread * round)]);
                }
            });
        }
    });
    assert_eq!(machine.fake().get("allocations"), allocations);
}

#[test]
fn states_follow_a_request_to_another_gpu() {
    let Some(fake) = FakeCuda::new() else { return };
    let Some(compiler) = HostCompiler::get() else { return };
    let api = Api::open(fake.path(), &[]).expect("the driver has every function");
    let driver = Driver::start(api).expect("starts");
    let devices = driver.devices().to_vec();
    let config = CudaConfig::resolve(&exact(), &devices[0].about).expect("possible");
    let blob =
        compile_blob(&accumulator(), &config, &devices[0], Some(compiler)).expect("compiles");
    let model = CudaModel::bind(blob, config, devices, Some(compiler)).expect("binds");
    let mut request = model.create_request().expect("memory");
    let mut infer = |expected: f32| {
        request.set_input(0, one()).expect("fits");
        request.infer(&CancelToken::new()).expect("runs");
        assert_eq!(numbers(request.output(0).expect("there")), [expected]);
    };
    let bytes = (WIDTH * WIDTH * 4) as i64;
    infer(1.0);
    // Whichever of the two it ran on, one of these turns takes that GPU away.
    for turn in 0..2 {
        let mut lent = [(); 2].map(|()| model.pool().borrow(None).expect("a slot"));
        lent.sort_by_key(|l| l.seat().map(|s| s.ordinal));
        let [first, second] = lent;
        let (taken, free) = if turn == 0 { (first, second) } else { (second, first) };
        drop(free);
        let before = fake.get("peer");
        infer(2.0 + 2.0 * turn as f32);
        assert!([0, bytes].contains(&(fake.get("peer") - before)));
        infer(3.0 + 2.0 * turn as f32);
        drop(taken);
    }
    assert!([bytes, 2 * bytes].contains(&fake.get("peer")), "{}", fake.get("peer"));
}

#[test]
fn a_request_alone_stays_where_its_states_are() {
    let Some(machine) = faked() else { return };
    let mut request = request(&machine, &accumulator(), "CUDA");
    let before = copied(&machine);
    for _ in 0..6 {
        run(&machine, &mut request, &[one()]);
    }
    assert_eq!(since(&machine, before), [24, 24, 0, 0]);
}

#[test]
fn states_on_a_lost_gpu_are_an_error_until_they_start_again() {
    let Some(machine) = faked() else { return };
    let mut request = request(&machine, &accumulator(), "CUDA");
    for _ in 0..2 {
        run(&machine, &mut request, &[one()]);
    }
    machine.fake().set("fail_code", 700);
    machine.fake().set("fail_launch", machine.fake().get("launches") + 1);
    request.run(&[one()]).expect_err("the GPU fails");
    machine.fake().set("fail_launch", 0);
    for _ in 0..2 {
        let error = request.run(&[one()]).expect_err("the states were there").to_string();
        assert!(error.contains("reset_states"), "{error}");
    }
    assert!(request.state("v").is_err());
    request.reset_states().expect("stateful");
    assert_eq!(numbers(&run(&machine, &mut request, &[one()])[0]), [1.0]);
}

#[test]
fn an_inference_that_fails_leaves_states_as_they_were() {
    let Some(machine) = faked() else { return };
    let mut request = request(&machine, &accumulator(), "CUDA.0");
    let mut other = accumulator();
    other.set_name("other");
    for _ in 0..2 {
        run(&machine, &mut request, &[one()]);
    }
    // No memory for the room of a second request: its first inference fails, and goes well when there is some.
    let compiled = machine.core.compile_model(other, "CUDA.0", &exact()).expect("compiles");
    let mut second = compiled.create_infer_request().expect("memory");
    machine.fake().set("fail_allocation", machine.fake().get("allocation_calls") + 2);
    second.run(&[one()]).expect_err("no memory");
    machine.fake().set("fail_allocation", 0);
    assert_eq!(numbers(&second.state("v").expect("is there")), [0.0; WIDTH * WIDTH]);
    assert_eq!(numbers(&run(&machine, &mut second, &[one()])[0]), [1.0]);
    let wrong = Tensor::from_vec([2], vec![0.0f32; 2]).expect("fits");
    assert!(request.set_state("v", &wrong).is_err());
    assert_eq!(numbers(&run(&machine, &mut request, &[one()])[0]), [3.0]);
}

/// Two variables that change places, one that stays, one that takes an input, and one that is a constant from then on.
fn places() -> Model {
    let mut m = Model::new("places");
    let x = parameter(&mut m, "x", &[2]);
    let shape = || PartialShape::from(&Shape::new(&[2]));
    let mut read =
        |name: &str| m.add_variable(name, ElementType::F32, shape(), None).expect("valid");
    let v: Vec<Value> = ["a", "b", "stays", "input", "fixed"].map(&mut read).to_vec();
    let y = m.add(Concat { axis: 0 }, &v, "y").expect("valid");
    let raised = m.add(Add::default(), &[v[0], x], "raised").expect("valid");
    let constant = m.add_constant(Tensor::from_vec([2], vec![5.0f32, 6.0]).expect("fits"), "c");
    m.add_output("y", y);
    m.add_output("stays", v[2]);
    for (i, value) in [v[1], raised, v[2], x, constant].into_iter().enumerate() {
        m.add_variable_output(i, value).expect("fits");
    }
    m
}

#[test]
fn values_may_change_places() {
    let Some(machine) = faked() else { return };
    let mut request = request(&machine, &places(), "CUDA.0");
    let names = ["a", "b", "stays", "input", "fixed"];
    for (i, name) in names.iter().enumerate() {
        let value = Tensor::from_vec([2], vec![i as f32, -(i as f32)]).expect("fits");
        request.set_state(name, &value).expect("fits");
    }
    let x = Tensor::from_vec([2], vec![10.0f32, 20.0]).expect("fits");
    let mut expected = [[0.0, -0.0], [1.0, -1.0], [2.0, -2.0], [3.0, -3.0], [4.0, -4.0f32]];
    for _ in 0..4 {
        let got = run(&machine, &mut request, std::slice::from_ref(&x));
        assert_eq!(numbers(&got[0]), expected.concat());
        assert_eq!(numbers(&got[1]), expected[2]);
        let [a, b, stays, ..] = expected;
        expected = [b, [a[0] + 10.0, a[1] + 20.0], stays, [10.0, 20.0], [5.0, 6.0]];
        for (name, expected) in names.iter().zip(&expected) {
            assert_eq!(numbers(&request.state(name).expect("is there")), expected, "{name}");
        }
    }
}

/// A cache into which a row is written at a place that is an input; `read_old` also gives the cache before.
fn cache(read_old: bool) -> Model {
    let mut m = Model::new("cache");
    let row = parameter(&mut m, "row", &[1, 1, WIDTH]);
    let at = m.add_parameter("at", ElementType::I64, [1]).expect("valid");
    let shape = PartialShape::from(&Shape::new(&[1, WIDTH, WIDTH]));
    let v = m.add_variable("v", ElementType::F32, shape, None).expect("valid");
    let op = TensorScatter { axis: 1, mode: CacheMode::Linear };
    let next = m.add(op, &[v, row, at], "next").expect("valid");
    let axes = m.add_constant(Tensor::from_i64s(&[0, 1, 2]), "axes");
    let op = ov_core::op::reduction::ReduceMean { keep_dims: false };
    let y = m.add(op, &[next, axes], "y").expect("valid");
    if read_old {
        let y = m.add(Multiply::default(), &[v, next], "old").expect("valid");
        m.add_output("old", y);
    }
    m.add_output("y", y);
    m.add_variable_output(0, next).expect("fits");
    m
}

#[test]
fn a_row_is_written_in_place_unless_the_value_before_is_read_later() {
    let Some(machine) = faked() else { return };
    for read_old in [false, true] {
        let mut request = request(&machine, &cache(read_old), "CUDA.0");
        let (launches, graphs) =
            (machine.fake().get("launches"), machine.fake().get("graph_execs"));
        for step in 0..4i64 {
            let row = Tensor::from_vec([1, 1, WIDTH], vec![1.0f32; WIDTH]).expect("fits");
            let y = run(&machine, &mut request, &[row, Tensor::from_i64s(&[2 * step])]);
            let mean = (step + 1) as f32 / WIDTH as f32;
            let y = numbers(y.last().expect("given"));
            assert!((y[0] - mean).abs() < 1e-6, "{y:?}");
        }
        let v = numbers(&request.state("v").expect("is there"));
        let rows: Vec<bool> = v.chunks(WIDTH).map(|r| r[0] == 1.0).collect();
        assert!(rows.iter().enumerate().all(|(i, set)| *set == (i % 2 == 0 && i < 8)));
        let launches = (machine.fake().get("launches") - launches) / 4;
        let graphs = machine.fake().get("graph_execs") - graphs;
        // Without copying the cache there is one launch less, and the memory stays the same.
        assert_eq!(graphs, if read_old { 2 } else { 1 });
        assert!(read_old || launches <= 3, "{launches}");
    }
}

/// Grows by a row per inference; its first value is computed by the model.
fn growing() -> Model {
    let mut m = Model::new("growing");
    let x = parameter(&mut m, "x", &[1, 3]);
    let shape = PartialShape::new(&[Dimension::DYNAMIC, Dimension::fixed(3)]);
    let start = m.add(Multiply::default(), &[x, x], "start").expect("valid");
    let v = m.add_variable("v", ElementType::F32, shape, Some(start)).expect("valid");
    let next = m.add(Concat { axis: 0 }, &[v, x], "next").expect("valid");
    let axes = m.add_constant(Tensor::from_i64s(&[0]), "axes");
    let op = ov_core::op::reduction::ReduceMean { keep_dims: false };
    let y = m.add(op, &[next, axes], "y").expect("valid");
    m.add_output("y", y);
    m.add_variable_output(0, next).expect("fits");
    m
}

#[test]
fn values_grow_from_one_that_the_model_computes() {
    let Some(machine) = faked() else { return };
    let mut request = request(&machine, &growing(), "CUDA.0");
    for _ in 0..2 {
        let before = copied(&machine);
        let mut expected = vec![vec![4.0f32, 9.0, 16.0]];
        for step in 1..6 {
            let x = Tensor::from_vec([1, 3], vec![2.0f32, 3.0, 4.0]).expect("fits");
            let y = run(&machine, &mut request, &[x]);
            expected.push(vec![2.0, 3.0, 4.0]);
            let mean = |i: usize| expected.iter().map(|r| r[i]).sum::<f32>() / (step + 1) as f32;
            let y = numbers(&y[0]);
            assert!((0..3).all(|i| (y[i] - mean(i)).abs() < 1e-5), "{y:?}");
        }
        assert_eq!(since(&machine, before), [5 * 12, 5 * 12, 0, 0]);
        let v = request.state("v").expect("is there");
        assert_eq!((v.shape().to_vec(), numbers(&v)), (vec![6, 3], expected.concat()));
        request.reset_states().expect("stateful");
    }
}
