//! An asynchronous inference as a future.

use std::{
    pin::Pin,
    sync::mpsc::TryRecvError,
    task::{Context, Poll},
};

use super::{InferRequest, worker::worker_ended};
use crate::error::Result;

/// The end of an inference that [`InferRequest::start_async_future`] started, for any executor: the inference runs on
/// the request's own thread, which wakes the task.
///
/// The result is that of [`InferRequest::wait`]; the outputs are then in the request. Dropping the future cancels the
/// inference without waiting for it: the request is busy until the device has stopped, and [`InferRequest::wait`] waits
/// for that. [`InferFuture::detach`] lets the inference go on instead.
///
/// ```
/// # #[cfg(feature = "testing")] {
/// # use ov_core::{Core, ElementType, Model, PropertyMap, Result, Tensor, op::activation::Relu};
/// # use ov_core::testing::template_device::TemplatePlugin;
/// use ov_core::InferRequest;
///
/// async fn classify(request: &mut InferRequest, image: Tensor) -> Result<Tensor> {
///     request.set_input(0, image)?;
///     request.start_async_future()?.await?;
///     request.output(0).cloned()
/// }
/// # let mut model = Model::new("m");
/// # let x = model.add_parameter("x", ElementType::F32, [2])?;
/// # let y = model.add(Relu {}, &[x], "y")?;
/// # model.add_output("y", y);
/// # let core = Core::with_plugins([TemplatePlugin::create()])?;
/// # let compiled = core.compile_model(model, "TEMPLATE", &PropertyMap::new())?;
/// # let mut request = compiled.create_infer_request()?;
/// # let mut task = std::pin::pin!(classify(&mut request, Tensor::from_vec([2], vec![-1.0f32, 1.0])?));
/// # let mut context = std::task::Context::from_waker(std::task::Waker::noop());
/// # let y = loop {
/// #     if let std::task::Poll::Ready(y) = task.as_mut().poll(&mut context) { break y? }
/// # };
/// # assert_eq!(y.as_slice::<f32>()?, [0.0, 1.0]);
/// # }
/// # Ok::<(), ov_core::Error>(())
/// ```
#[must_use = "dropping the future cancels the inference"]
#[derive(Debug)]
pub struct InferFuture<'a> {
    /// Nothing once it does not matter any more whether the inference ends.
    request: Option<&'a mut InferRequest>,
}

impl<'a> InferFuture<'a> {
    pub(super) const fn new(request: &'a mut InferRequest) -> Self {
        Self { request: Some(request) }
    }

    /// Lets the inference go on unobserved; [`InferRequest::wait`] gives its result.
    pub fn detach(mut self) {
        if let Some(worker) = self.request.take().and_then(|r| r.worker.as_ref()) {
            worker.wake_nobody();
        }
    }
}

impl Future for InferFuture<'_> {
    type Output = Result<()>;

    /// Ready with the result once; polled again, ready with `Ok`.
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        let Some(request) = &mut self.request else { return Poll::Ready(Ok(())) };
        if request.idle.is_none() {
            let device = request.model.device();
            let Some(worker) = &request.worker else {
                return Poll::Ready(Err(worker_ended(device)));
            };
            worker.wake_when_done(context.waker());
            match worker.done.try_recv() {
                Ok(done) => {
                    worker.wake_nobody();
                    request.finish(done);
                }
                Err(TryRecvError::Empty) => return Poll::Pending,
                Err(TryRecvError::Disconnected) => return Poll::Ready(Err(worker_ended(device))),
            }
        }
        let result = request.outcome.take().unwrap_or(Ok(()));
        self.request = None;
        Poll::Ready(result)
    }
}

impl Drop for InferFuture<'_> {
    fn drop(&mut self) {
        if let Some(request) = self.request.take() {
            request.cancel();
            if let Some(worker) = &request.worker {
                worker.wake_nobody();
            }
        }
    }
}
