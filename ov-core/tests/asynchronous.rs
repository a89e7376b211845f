//! Futures of inferences, and queues of requests, on the simulated device.
#![cfg(test)]

use std::{
    pin::pin,
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    task::{Context, Poll, Wake, Waker},
    thread::{self, Thread},
    time::Duration,
};

use ov_core::{
    AsyncInferQueue, CompiledModel, Core, ElementType, Error, Model, PropertyMap, QueueOptions,
    Result, Submission, Tensor,
    error::InferError,
    plugin::Plugin,
    testing::sim::{SimPlugin, unmark},
};

fn compiled(properties: &[(&str, &str)]) -> (CompiledModel, Arc<SimPlugin>) {
    let mut model = Model::new("m");
    let x = model.add_parameter("x", ElementType::F32, [2]).expect("valid");
    let y = model.add(ov_core::op::activation::Relu {}, &[x], "y").expect("valid");
    model.add_output("y", y);
    let sim = SimPlugin::named("SIM", 1);
    let core = Core::with_plugins([Arc::clone(&sim) as Arc<dyn Plugin>]).expect("one plugin");
    let mut map = PropertyMap::new();
    for (name, text) in [("SIM_OUTPUT", "MARK")].iter().chain(properties) {
        map.set_text(name, text).expect("valid");
    }
    (core.compile_model(model, "SIM", &map).expect("compiles"), sim)
}

/// The input of inference `id`, which marks its outputs.
fn input(id: u16) -> [Tensor; 1] {
    [Tensor::from_vec([2], vec![f32::from(id), 0.0]).expect("two")]
}

fn request_of(output: &Tensor) -> u16 {
    unmark(output.as_slice::<f32>().expect("f32")[0]).2
}

struct Unpark(Thread, AtomicUsize);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.1.fetch_add(1, Ordering::Relaxed);
        self.0.unpark();
    }
}

fn unpark() -> (Arc<Unpark>, Waker) {
    let unpark = Arc::new(Unpark(thread::current(), AtomicUsize::new(0)));
    (Arc::clone(&unpark), unpark.into())
}

/// The smallest executor: polls when woken, and only then.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    let (woken, waker) = unpark();
    let mut polled = 0;
    loop {
        if let Poll::Ready(value) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return value;
        }
        polled += 1;
        while woken.1.load(Ordering::Relaxed) < polled {
            thread::park();
        }
        polled = woken.1.load(Ordering::Relaxed);
    }
}

#[test]
fn a_future_wakes_its_task_and_gives_the_result() {
    let (model, _sim) = compiled(&[("SIM_INFER_US", "500")]);
    let mut request = model.create_infer_request().expect("memory");
    let calls = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&calls);
    request
        .set_callback(move |_| {
            counter.fetch_add(1, Ordering::Relaxed);
            Ok(())
        })
        .expect("idle");
    for id in 0..20 {
        let [x] = input(id);
        request.set_input(0, x).expect("fits");
        block_on(request.start_async_future().expect("idle")).expect("runs");
        assert_eq!(request_of(request.output(0).expect("idle")), id);
    }
    assert_eq!(calls.load(Ordering::Relaxed), 20);
    request.wait().expect("the future took the result");
}

#[test]
fn a_future_gives_the_error_of_its_inference() {
    for (fault, text) in [("ERROR", "a simulated error"), ("PANIC", "panicked")] {
        let (model, _sim) = compiled(&[("SIM_INFER_FAULT", fault)]);
        let mut request = model.create_infer_request().expect("memory");
        let error = block_on(request.start_async_future().expect("idle")).expect_err(fault);
        assert!(error.to_string().contains(text), "{error}");
    }
}

#[test]
fn the_last_waker_is_woken() {
    let (model, sim) = compiled(&[("SIM_INFER_FAULT", "HANG")]);
    let mut request = model.create_infer_request().expect("memory");
    let mut future = pin!(request.start_async_future().expect("idle"));
    let (first, first_waker) = unpark();
    let (second, second_waker) = unpark();
    for waker in [&first_waker, &second_waker] {
        assert!(future.as_mut().poll(&mut Context::from_waker(waker)).is_pending());
    }
    sim.release();
    while second.1.load(Ordering::Relaxed) == 0 {
        thread::park_timeout(Duration::from_millis(10));
    }
    assert_eq!(first.1.load(Ordering::Relaxed), 0);
    let mut context = Context::from_waker(&first_waker);
    assert!(matches!(future.as_mut().poll(&mut context), Poll::Ready(Ok(()))));
}

#[test]
fn a_dropped_future_cancels_and_a_detached_one_does_not() {
    let (model, sim) = compiled(&[("SIM_INFER_FAULT", "HANG")]);
    let mut request = model.create_infer_request().expect("memory");
    drop(request.start_async_future().expect("idle"));
    assert_eq!(request.wait().expect_err("canceled").to_string(), "inference was canceled");
    request.start_async_future().expect("usable").detach();
    assert!(request.is_busy());
    assert!(
        matches!(request.start_async_future(), Err(Error::Infer(e)) if matches!(*e, InferError::Busy))
    );
    sim.release();
    request.wait().expect("it was not canceled");
}

/// What callbacks were told: user data, and the request in the outputs or the error.
type Told = Arc<Mutex<Vec<(u16, Result<u16, String>)>>>;

fn queue(model: &CompiledModel, requests: usize, ordered: bool) -> (AsyncInferQueue<u16>, Told) {
    let told = Told::default();
    let log = Arc::clone(&told);
    let options = QueueOptions { requests, ordered };
    let queue = AsyncInferQueue::new(model, options, move |request, id| {
        let got = match request {
            Ok(request) => Ok(request_of(request.output(0)?)),
            Err(error) => Err(error.to_string()),
        };
        log.lock().expect("not poisoned").push((id, got));
        Ok(())
    });
    (queue.expect("requests"), told)
}

#[test]
fn every_inference_calls_back_once_with_its_own_outputs() {
    let (model, _sim) = compiled(&[("SIM_INFER_JITTER_US", "300")]);
    let (queue, told) = queue(&model, 4, false);
    assert_eq!(queue.len(), 4);
    thread::scope(|scope| {
        for part in 0..3 {
            let queue = &queue;
            scope.spawn(move || {
                for id in part * 40..(part + 1) * 40 {
                    queue.start_async(&input(id), id).expect("starts");
                }
            });
        }
    });
    queue.wait_all().expect("all succeed");
    assert!(queue.is_ready());
    let mut told = told.lock().expect("not poisoned").clone();
    told.sort();
    assert_eq!(told, (0..120).map(|id| (id, Ok(id))).collect::<Vec<_>>());
}

#[test]
fn the_default_is_the_optimal_number_of_requests() {
    let (model, _sim) = compiled(&[]);
    assert_eq!(queue(&model, 0, false).0.len(), 1);
}

#[test]
fn a_full_queue_gives_the_user_data_back() {
    let (model, sim) = compiled(&[("SIM_INFER_FAULT", "HANG")]);
    let (queue, told) = queue(&model, 2, false);
    queue.start_async(&input(0), 0).expect("idle");
    assert!(queue.is_ready());
    assert_eq!(queue.try_start(&input(1), 1).expect("fits"), Submission::Started);
    assert!(!queue.is_ready());
    assert_eq!(queue.try_start(&input(2), 2).expect("fits"), Submission::Full(2));
    let short = Duration::from_millis(2);
    assert_eq!(queue.start_timeout(&input(3), 3, short).expect("fits"), Submission::Full(3));
    assert!(queue.try_idle_request().is_none());
    thread::scope(|scope| {
        let (sender, started) = mpsc::channel();
        let queue = &queue;
        scope.spawn(move || {
            queue.start_async(&input(4), 4).expect("starts once a request is idle");
            sender.send(()).expect("the receiver lives");
        });
        assert!(started.recv_timeout(Duration::from_millis(20)).is_err(), "it waits");
        sim.release();
        started.recv().expect("starts");
    });
    let long = Duration::from_secs(60);
    assert_eq!(queue.start_timeout(&input(5), 5, long).expect("fits"), Submission::Started);
    queue.wait_all().expect("released");
    let mut told = told.lock().expect("not poisoned").clone();
    told.sort();
    assert_eq!(told, [0, 1, 4, 5].map(|id| (id, Ok(id))));
}

#[test]
fn ordered_callbacks_come_one_at_a_time_in_the_order_of_starting() {
    let (model, _sim) = compiled(&[("SIM_INFER_JITTER_US", "2000")]);
    let (running, order) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(Vec::new())));
    let (r, o) = (Arc::clone(&running), Arc::clone(&order));
    let options = QueueOptions { requests: 4, ordered: true };
    let queue = AsyncInferQueue::new(&model, options, move |request, id| {
        assert_eq!(r.fetch_add(1, Ordering::SeqCst), 0, "another callback runs");
        thread::sleep(Duration::from_micros(200));
        o.lock().expect("not poisoned").push((id, request_of(request.expect("runs").output(0)?)));
        r.fetch_sub(1, Ordering::SeqCst);
        Ok(())
    })
    .expect("requests");
    for id in 0..60 {
        queue.start_async(&input(id), id).expect("starts");
    }
    queue.wait_all().expect("all succeed");
    assert_eq!(*order.lock().expect("not poisoned"), (0..60).map(|i| (i, i)).collect::<Vec<_>>());
}

#[test]
fn errors_come_out_of_the_callback_and_of_wait_all_once() {
    let (model, _sim) = compiled(&[("SIM_INFER_FAULT", "ERROR"), ("SIM_INFER_FAULT_AFTER", "3")]);
    let (queue, told) = queue(&model, 1, false);
    for id in 0..5 {
        queue.start_async(&input(id), id).expect("starts");
    }
    let error = queue.wait_all().expect_err("two fail");
    assert_eq!(
        error.to_string(),
        "failed inferences of the queue: 2, the first with: device SIM failed: a simulated error"
    );
    queue.wait_all().expect("errors are told once");
    let told = told.lock().expect("not poisoned");
    assert!(told[..3].iter().all(|(_, got)| got.is_ok()));
    assert!(told[3..].iter().all(|(_, got)| got.as_ref().is_err_and(|e| e.contains("simulated"))));
    assert_eq!(told.len(), 5);
}

#[test]
fn errors_and_panics_of_callbacks_come_out_of_wait_all() {
    let (model, _sim) = compiled(&[]);
    let callback = |_: Result<&_, &Error>, id: u16| match id {
        0 => Ok(()),
        1 => Err(InferError::Canceled.into()),
        _ => panic!("callback {id}"),
    };
    let queue = AsyncInferQueue::new(&model, QueueOptions { requests: 3, ordered: true }, callback)
        .expect("requests");
    for (ids, text) in [
        (&[0][..], None),
        (&[0, 1], Some("1, the first with: inference was canceled")),
        (&[2, 1], Some("2, the first with: inference on the callback panicked: callback 2")),
        (&[0], None),
    ] {
        for id in ids {
            queue.start_async(&input(*id), *id).expect("starts");
        }
        let got = queue.wait_all().err().map(|e| e.to_string());
        assert_eq!(got, text.map(|t| format!("failed inferences of the queue: {t}")));
    }
}

#[test]
fn tensors_that_do_not_fit_start_nothing_and_keep_no_request() {
    let (model, _sim) = compiled(&[]);
    let (queue, told) = queue(&model, 1, false);
    let wrong = [Tensor::from_vec([3], vec![0.0f32; 3]).expect("three")];
    let [x] = input(0);
    for (inputs, text) in [
        (&wrong[..], "input \"x\" expects f32[2], got f32[3]"),
        (&[], "input \"x\" has no tensor: set it before infer (f32[2])"),
        (&[x.clone(), x], "model has no input 1; it has 0 \"x\""),
    ] {
        let error = queue.start_async(inputs, 0).expect_err("does not fit");
        assert_eq!(error.to_string(), text);
        assert!(queue.is_ready());
    }
    queue.wait_all().expect("nothing was started");
    assert!(told.lock().expect("not poisoned").is_empty());
    queue.start_async(&input(7), 7).expect("fits");
    queue.wait_all().expect("runs");
    assert_eq!(*told.lock().expect("not poisoned"), [(7, Ok(7))]);
}

#[test]
fn idle_requests_are_filled_in_place() {
    let (model, _sim) = compiled(&[]);
    let (queue, told) = queue(&model, 1, false);
    let mut request = queue.idle_request().expect("idle");
    assert_eq!(request.number(), 0);
    assert!(!queue.is_ready());
    request.input_mut("x").expect("static").as_mut_slice::<f32>().expect("f32")[0] = 9.0;
    request.start(9).expect("complete");
    queue.wait_all().expect("runs");
    drop(queue.idle_request().expect("idle"));
    assert!(queue.is_ready(), "a dropped request is idle again");
    assert_eq!(*told.lock().expect("not poisoned"), [(9, Ok(9))]);
}

#[test]
fn cancelling_stops_what_was_started_and_nothing_later() {
    let (model, sim) = compiled(&[("SIM_INFER_FAULT", "HANG")]);
    let (queue, told) = queue(&model, 2, true);
    for id in 0..2 {
        queue.start_async(&input(id), id).expect("starts");
    }
    queue.cancel();
    let error = queue.wait_all().expect_err("canceled").to_string();
    assert!(error.ends_with("2, the first with: inference was canceled"), "{error}");
    queue.start_async(&input(2), 2).expect("starts");
    sim.release();
    queue.wait_all().expect("not canceled");
    let canceled = || Err("inference was canceled".to_owned());
    assert_eq!(*told.lock().expect("not poisoned"), [(0, canceled()), (1, canceled()), (2, Ok(2))]);
}

#[test]
fn dropping_a_queue_cancels_and_still_calls_back() {
    let (model, _sim) = compiled(&[("SIM_INFER_FAULT", "HANG")]);
    let (queue, told) = queue(&model, 2, false);
    for id in 0..2 {
        queue.start_async(&input(id), id).expect("starts");
    }
    drop(queue);
    let told = told.lock().expect("not poisoned");
    assert_eq!(told.len(), 2);
    assert!(told.iter().all(|(_, got)| got.is_err()), "{told:?}");
}

#[test]
fn a_device_that_ignores_cancelling_does_not_hold_the_drop() {
    let (model, sim) = compiled(&[("SIM_INFER_FAULT", "HANG"), ("SIM_IGNORE_CANCEL", "YES")]);
    let (sender, ended) = mpsc::channel();
    for begun in 1.. {
        let sender = sender.clone();
        let queue = AsyncInferQueue::new(&model, QueueOptions::default(), move |_, id: u16| {
            sender.send(id).expect("the receiver lives");
            Ok(())
        })
        .expect("requests");
        queue.start_async(&input(3), 3).expect("starts");
        thread::sleep(Duration::from_millis(begun));
        drop(queue);
        // It was canceled before its thread had begun it: that thread gets more time.
        if ended.try_recv().is_err() {
            break;
        }
    }
    drop(sender);
    sim.release();
    assert_eq!(ended.recv(), Ok(3), "every inference calls back");
    assert!(ended.recv().is_err(), "the thread has ended");
}

#[test]
fn callbacks_start_more() {
    let (model, _sim) = compiled(&[]);
    let (sender, results) = mpsc::channel();
    let queue = Arc::new_cyclic(|weak: &Weak<AsyncInferQueue<u16>>| {
        let weak = weak.clone();
        let options = QueueOptions { requests: 11, ordered: false };
        AsyncInferQueue::new(&model, options, move |_, id| {
            sender.send(id).expect("the receiver lives");
            if let Some(queue) = weak.upgrade().filter(|_| id < 10) {
                assert_eq!(queue.try_start(&input(id + 1), id + 1)?, Submission::Started);
            }
            Ok(())
        })
        .expect("requests")
    });
    queue.start_async(&input(0), 0).expect("starts");
    assert_eq!(results.iter().take(11).collect::<Vec<_>>(), (0..11).collect::<Vec<_>>());
    queue.wait_all().expect("all succeed");
}

#[test]
fn callbacks_do_not_wait_for_themselves() {
    let (model, _sim) = compiled(&[]);
    let (sender, results) = mpsc::channel();
    let queue = Arc::new_cyclic(|weak: &Weak<AsyncInferQueue<u16>>| {
        let weak = weak.clone();
        AsyncInferQueue::new(&model, QueueOptions::default(), move |_, _| {
            let Some(queue) = weak.upgrade() else { return Ok(()) };
            let full = queue.start_async(&input(0), 0).expect_err("would wait");
            let all = queue.wait_all().expect_err("would wait");
            sender.send([full, all].map(|e| e.to_string())).expect("the receiver lives");
            Ok(())
        })
        .expect("requests")
    });
    queue.start_async(&input(0), 0).expect("starts");
    let itself = "in a callback of the same queue would wait for itself";
    assert_eq!(
        results.recv().expect("called"),
        [
            format!("waiting for an idle request {itself}: call try_start there"),
            format!("wait_all {itself}: call it on another thread"),
        ]
    );
    queue.wait_all().expect("all succeed");
}
