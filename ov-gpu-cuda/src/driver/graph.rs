//! Graphs of copies and launches, built node by node and launched as one.

use std::{ffi::c_void, fmt, sync::Arc};

use cudarc::driver::sys::{
    CUDA_KERNEL_NODE_PARAMS, CUDA_MEMCPY3D, CUgraph, CUgraphEdgeData, CUgraphExec, CUgraphNode,
    CUmemorytype,
};

use super::{
    device::{Context, Result},
    memory::{DeviceMemory, Pinned},
    module::Function,
    stream::{Event, Stream},
};

/// One launch of a kernel.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KernelNode<'a> {
    /// The kernel.
    pub(crate) function: &'a Function,
    /// Blocks.
    pub(crate) grid: [u32; 3],
    /// Threads per block.
    pub(crate) block: [u32; 3],
    /// Dynamic shared memory per block.
    pub(crate) shared: u32,
    /// The arguments, each as it lies in memory.
    pub(crate) args: &'a [Vec<u8>],
}

/// One end of a copy.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Side<'a> {
    /// Pinned memory from an offset on.
    Host(&'a Pinned, usize),
    /// Memory of the GPU from an offset on.
    Device(&'a DeviceMemory, usize),
}

impl Side<'_> {
    /// Kind, address on the host, address on the GPU of `len` bytes.
    fn range(self, len: usize) -> (CUmemorytype, *mut c_void, u64) {
        match self {
            Self::Host(pinned, at) => (CUmemorytype::CU_MEMORYTYPE_HOST, pinned.at(at, len), 0),
            Self::Device(memory, at) => {
                assert!(at.checked_add(len).is_some_and(|end| end <= memory.len()));
                let address = memory.address() + at as u64;
                (CUmemorytype::CU_MEMORYTYPE_DEVICE, std::ptr::null_mut(), address)
            }
        }
    }
}

/// A copy of `len` bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Transfer<'a> {
    pub(crate) from: Side<'a>,
    pub(crate) to: Side<'a>,
    pub(crate) len: usize,
}

/// A graph while nodes are added, one after the other: copies in may run side by side, then kernels in order, then
/// copies out side by side.
pub(crate) struct GraphBuilder {
    context: Arc<Context>,
    graph: CUgraph,
    /// What the next node waits for.
    frontier: Vec<CUgraphNode>,
    /// Whether the frontier is one kernel, whose successor may start before it has ended.
    after_kernel: bool,
    /// Whether successors of kernels may start early.
    programmatic: bool,
}

impl fmt::Debug for GraphBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("GraphBuilder")
    }
}

/// `CU_GRAPH_KERNEL_NODE_PORT_PROGRAMMATIC`: the edge begins where the kernel lets its successors start.
const PORT_PROGRAMMATIC: u8 = 1;
/// `CU_GRAPH_DEPENDENCY_TYPE_PROGRAMMATIC`
const TYPE_PROGRAMMATIC: u8 = 1;

impl GraphBuilder {
    /// An empty graph, which runs at the priority of the stream that it is launched in. From compute capability 9.0 on,
    /// and where the driver has such edges, a kernel that waits itself before it reads what others wrote may start while
    /// the one before it ends.
    ///
    /// # Errors
    /// What the driver says.
    pub(crate) fn new(context: &Arc<Context>) -> Result<Self> {
        context.current("cuGraphCreate")?;
        let functions = &context.device.api.functions;
        let mut graph: CUgraph = std::ptr::null_mut();
        // SAFETY: writes one handle.
        context.check("cuGraphCreate", unsafe { (functions.cuGraphCreate)(&raw mut graph, 0) })?;
        Ok(Self {
            context: Arc::clone(context),
            graph,
            frontier: Vec::new(),
            after_kernel: false,
            programmatic: context.device.about.capability >= (9, 0)
                && functions.cuGraphAddDependencies_v2.is_some(),
        })
    }

    /// Lets kernels wait for the whole of the kernel before them, for times kernel by kernel.
    pub(crate) fn without_overlap(&mut self) {
        self.programmatic = false;
    }

    /// Adds copies, which run side by side.
    ///
    /// # Errors
    /// What the driver says.
    ///
    /// # Panics
    /// When a range lies outside its memory.
    pub(crate) fn copies(&mut self, copies: &[Transfer<'_>]) -> Result<()> {
        let mut added = Vec::with_capacity(copies.len());
        for Transfer { from, to, len } in copies.iter().copied().filter(|c| c.len > 0) {
            let (from_kind, from_host, from_device) = from.range(len);
            let (to_kind, to_host, to_device) = to.range(len);
            let params = CUDA_MEMCPY3D {
                srcXInBytes: 0,
                srcY: 0,
                srcZ: 0,
                srcLOD: 0,
                srcMemoryType: from_kind,
                srcHost: from_host,
                srcDevice: from_device,
                srcArray: std::ptr::null_mut(),
                reserved0: std::ptr::null_mut(),
                // One row needs none, and there is a limit to it.
                srcPitch: 0,
                srcHeight: 0,
                dstXInBytes: 0,
                dstY: 0,
                dstZ: 0,
                dstLOD: 0,
                dstMemoryType: to_kind,
                dstHost: to_host,
                dstDevice: to_device,
                dstArray: std::ptr::null_mut(),
                reserved1: std::ptr::null_mut(),
                dstPitch: 0,
                dstHeight: 0,
                WidthInBytes: len,
                Height: 1,
                Depth: 1,
            };
            let mut node: CUgraphNode = std::ptr::null_mut();
            // SAFETY: writes one handle; both ranges were checked to lie within memory that outlives the graph, which
            // the owner of all three sees to.
            self.context.check("cuGraphAddMemcpyNode", unsafe {
                (self.context.device.api.functions.cuGraphAddMemcpyNode)(
                    &raw mut node,
                    self.graph,
                    self.frontier.as_ptr(),
                    self.frontier.len(),
                    &raw const params,
                    self.context.handle,
                )
            })?;
            added.push(node);
        }
        if !added.is_empty() {
            self.frontier = added;
            self.after_kernel = false;
        }
        Ok(())
    }

    /// Adds a launch after everything before it.
    ///
    /// # Errors
    /// What the driver says.
    pub(crate) fn kernel(&mut self, kernel: KernelNode<'_>) -> Result<()> {
        let functions = &self.context.device.api.functions;
        kernel.function.allow_shared(kernel.shared)?;
        kernel.function.expect_args(kernel.args)?;
        // The driver copies as many bytes from each address as the kernel declares; no parameter is wider than this.
        let mut args: Vec<Vec<u64>> = kernel
            .args
            .iter()
            .map(|bytes| {
                let words = bytes.chunks(8).map(|chunk| {
                    let mut word = [0; 8];
                    word[..chunk.len()].copy_from_slice(chunk);
                    u64::from_ne_bytes(word)
                });
                words.collect()
            })
            .collect();
        let mut pointers: Vec<*mut c_void> =
            args.iter_mut().map(|a| a.as_mut_ptr().cast()).collect();
        let params = CUDA_KERNEL_NODE_PARAMS {
            func: kernel.function.handle,
            gridDimX: kernel.grid[0],
            gridDimY: kernel.grid[1],
            gridDimZ: kernel.grid[2],
            blockDimX: kernel.block[0],
            blockDimY: kernel.block[1],
            blockDimZ: kernel.block[2],
            sharedMemBytes: kernel.shared,
            kernelParams: pointers.as_mut_ptr(),
            extra: std::ptr::null_mut(),
            kern: std::ptr::null_mut(),
            ctx: std::ptr::null_mut(),
        };
        let early = functions
            .cuGraphAddDependencies_v2
            .filter(|_| self.programmatic && kernel.function.waits())
            .filter(|_| self.after_kernel && self.frontier.len() == 1);
        let before = if early.is_some() { &[][..] } else { &self.frontier[..] };
        let mut node: CUgraphNode = std::ptr::null_mut();
        // SAFETY: writes one handle; the arguments are as the kernel declares them, which its family sees to, and are
        // copied during the call; the function's module is held by the owner of the graph.
        self.context.check("cuGraphAddKernelNode", unsafe {
            (functions.cuGraphAddKernelNode_v2)(
                &raw mut node,
                self.graph,
                before.as_ptr(),
                before.len(),
                &raw const params,
            )
        })?;
        if let Some(add) = early {
            let edge = CUgraphEdgeData {
                from_port: PORT_PROGRAMMATIC,
                to_port: 0,
                type_: TYPE_PROGRAMMATIC,
                reserved: [0; 5],
            };
            // SAFETY: one edge between two nodes of this graph.
            self.context.check("cuGraphAddDependencies", unsafe {
                add(self.graph, self.frontier.as_ptr(), &raw const node, &raw const edge, 1)
            })?;
        }
        self.frontier = vec![node];
        self.after_kernel = true;
        Ok(())
    }

    /// Adds a point in time after everything before it; nothing where the driver has no such nodes.
    ///
    /// # Errors
    /// What the driver says.
    pub(crate) fn record(&mut self, event: &Event) -> Result<()> {
        let Some(add) = self.context.device.api.functions.cuGraphAddEventRecordNode else {
            return Ok(());
        };
        let mut node: CUgraphNode = std::ptr::null_mut();
        // SAFETY: writes one handle; the event outlives the graph, which the owner of both sees to.
        self.context.check("cuGraphAddEventRecordNode", unsafe {
            add(
                &raw mut node,
                self.graph,
                self.frontier.as_ptr(),
                self.frontier.len(),
                event.handle,
            )
        })?;
        self.frontier = vec![node];
        self.after_kernel = false;
        Ok(())
    }

    /// The graph, ready to be launched: uploaded, so that the first launch is like the others.
    ///
    /// # Errors
    /// What the driver says.
    pub(crate) fn finish(self, stream: &Stream) -> Result<Graph> {
        let functions = &self.context.device.api.functions;
        self.context.current("cuGraphInstantiate")?;
        let mut handle: CUgraphExec = std::ptr::null_mut();
        // SAFETY: writes one handle.
        self.context.check("cuGraphInstantiate", unsafe {
            (functions.cuGraphInstantiateWithFlags)(&raw mut handle, self.graph, 0)
        })?;
        let graph = Graph { context: Arc::clone(&self.context), handle };
        if let Some(upload) = functions.cuGraphUpload {
            // SAFETY: both handles are valid.
            self.context.check("cuGraphUpload", unsafe { upload(handle, stream.handle) })?;
        }
        Ok(graph)
    }
}

impl Drop for GraphBuilder {
    fn drop(&mut self) {
        if self.context.current("cuGraphDestroy").is_ok() {
            // SAFETY: made by `new`; instantiated graphs live on their own.
            unsafe { (self.context.device.api.functions.cuGraphDestroy)(self.graph) };
        }
    }
}

/// A graph that can be launched again and again.
pub(crate) struct Graph {
    context: Arc<Context>,
    handle: CUgraphExec,
}

// SAFETY: handles of graphs may be used from any thread, one at a time, which exclusive borrows ensure.
unsafe impl Send for Graph {}

impl fmt::Debug for Graph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Graph")
    }
}

impl Graph {
    /// Starts the graph in a stream.
    ///
    /// # Errors
    /// What the driver says.
    pub(crate) fn launch(&mut self, stream: &Stream) -> Result<()> {
        self.context.current("cuGraphLaunch")?;
        // SAFETY: both handles are valid, and what the nodes use is held by the owner of the graph.
        self.context.check("cuGraphLaunch", unsafe {
            (self.context.device.api.functions.cuGraphLaunch)(self.handle, stream.handle)
        })
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        if self.context.current("cuGraphExecDestroy").is_ok() {
            // SAFETY: made by `GraphBuilder::finish`; the driver lets a running launch finish first.
            unsafe { (self.context.device.api.functions.cuGraphExecDestroy)(self.handle) };
        }
    }
}
