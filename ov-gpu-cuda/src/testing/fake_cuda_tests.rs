//! The fake driver: that it does what it is asked, refuses what a driver refuses and fails when told to.

use std::{
    ffi::{CString, c_int, c_uint, c_void},
    ptr::{null, null_mut},
};

use cudarc::driver::sys::{CUDA_KERNEL_NODE_PARAMS, CUDA_MEMCPY3D, CUgraphEdgeData, CUmemorytype};
use libloading::Library;

use super::{FakeCuda, HostCompiler};
use crate::{
    compile::{Compiler, Target},
    kernels::Source,
};

type Handle = *mut c_void;

/// The driver as its users load it.
struct Driver(Library);

macro_rules! call {
    ($driver:expr, $name:literal($($ty:ty: $value:expr),*)) => {{
        // SAFETY: the type is that of the driver's function; pointers are to locals or to what the driver gave.
        let f = *unsafe {
            $driver.0.get::<unsafe extern "C" fn($($ty),*) -> u32>(concat!($name, "\0").as_bytes())
        }
        .expect($name);
        // SAFETY: as above.
        unsafe { f($($value),*) }
    }};
}

impl Driver {
    fn open(fake: &FakeCuda) -> Self {
        // SAFETY: the library's initialisers only fill its own tables.
        let driver = Self(unsafe { Library::new(fake.path()) }.expect("opens"));
        assert_eq!(call!(driver, "cuInit"(c_uint: 0)), 0);
        driver
    }

    fn enter(&self, device: c_int) {
        let mut context: Handle = null_mut();
        assert_eq!(
            call!(self, "cuDevicePrimaryCtxRetain"(*mut Handle: &raw mut context, c_int: device)),
            0
        );
        assert_eq!(call!(self, "cuCtxSetCurrent"(Handle: context)), 0);
    }

    fn alloc(&self, len: usize) -> Result<u64, u32> {
        let mut at = 0_u64;
        match call!(self, "cuMemAlloc_v2"(*mut u64: &raw mut at, usize: len)) {
            0 => Ok(at),
            code => Err(code),
        }
    }

    fn function(&self, image: &[u8], name: &str) -> Handle {
        let (mut module, mut function): (Handle, Handle) = (null_mut(), null_mut());
        let bytes = image.as_ptr().cast();
        assert_eq!(
            call!(self, "cuModuleLoadData"(*mut Handle: &raw mut module, *const c_void: bytes)),
            0
        );
        let name = CString::new(name).expect("no zero byte");
        let found = call!(self, "cuModuleGetFunction"(
            *mut Handle: &raw mut function, Handle: module, *const i8: name.as_ptr().cast()));
        assert_eq!(found, 0);
        function
    }
}

fn image() -> Vec<u8> {
    let body = "
OV_KERNEL scale(const float* x, float* y, float by) {
  ov_grid_wait();
  y[ov_global_thread()] = x[ov_global_thread()] * by;
}
OV_KERNEL many() { OV_SHARED(float, a, 8192); a[0] = 0; ov_grid_wait(); }
OV_KERNEL diverge() { ov_grid_wait(); if (ov_lane() > 3) ov_warp_sync(); }
";
    let source = Source { body: body.into(), defines: Vec::new() };
    let compiler = HostCompiler::get().expect("checked before");
    compiler.compile(&source, Target::cubin((9, 0))).expect("compiles").bytes
}

fn kernel_node(
    function: Handle,
    arguments: &mut [Handle],
    threads: u32,
) -> CUDA_KERNEL_NODE_PARAMS {
    CUDA_KERNEL_NODE_PARAMS {
        func: function.cast(),
        gridDimX: 1,
        gridDimY: 1,
        gridDimZ: 1,
        blockDimX: threads,
        blockDimY: 1,
        blockDimZ: 1,
        sharedMemBytes: 0,
        kernelParams: arguments.as_mut_ptr(),
        extra: null_mut(),
        kern: null_mut(),
        ctx: null_mut(),
    }
}

#[test]
fn graphs_copy_launch_and_copy_back() {
    let Some(fake) = FakeCuda::new() else { return };
    fake.set("delay_us", 200);
    let d = Driver::open(&fake);
    d.enter(1);
    let function = d.function(&image(), "scale");
    let (x, y) = (d.alloc(128).unwrap(), d.alloc(128).unwrap());
    let mut pinned: Handle = null_mut();
    assert_eq!(call!(d, "cuMemHostAlloc"(*mut Handle: &raw mut pinned, usize: 256, c_uint: 0)), 0);
    // SAFETY: the driver gave 256 bytes at a page boundary.
    let host = unsafe { std::slice::from_raw_parts_mut(pinned.cast::<f32>(), 64) };
    host[..32].iter_mut().zip(1_u8..).for_each(|(h, i)| *h = i.into());
    let copy = |up: bool, host: *mut f32, device: u64| CUDA_MEMCPY3D {
        srcXInBytes: 0,
        srcY: 0,
        srcZ: 0,
        srcLOD: 0,
        srcMemoryType: if up {
            CUmemorytype::CU_MEMORYTYPE_HOST
        } else {
            CUmemorytype::CU_MEMORYTYPE_DEVICE
        },
        srcHost: host.cast(),
        srcDevice: device,
        srcArray: null_mut(),
        reserved0: null_mut(),
        srcPitch: 128,
        srcHeight: 1,
        dstXInBytes: 0,
        dstY: 0,
        dstZ: 0,
        dstLOD: 0,
        dstMemoryType: if up {
            CUmemorytype::CU_MEMORYTYPE_DEVICE
        } else {
            CUmemorytype::CU_MEMORYTYPE_HOST
        },
        dstHost: host.cast(),
        dstDevice: device,
        dstArray: null_mut(),
        reserved1: null_mut(),
        dstPitch: 128,
        dstHeight: 1,
        WidthInBytes: 128,
        Height: 1,
        Depth: 1,
    };
    let mut graph: Handle = null_mut();
    assert_eq!(call!(d, "cuGraphCreate"(*mut Handle: &raw mut graph, c_uint: 0)), 0);
    let (mut up, mut down) = (null_mut(), null_mut());
    let params = copy(true, host.as_mut_ptr(), x);
    assert_eq!(
        call!(d, "cuGraphAddMemcpyNode"(*mut Handle: &raw mut up, Handle: graph, *const Handle: null(),
        usize: 0, *const CUDA_MEMCPY3D: &raw const params, Handle: null_mut())),
        0
    );
    let by = 3.0_f32;
    let mut kernels = [null_mut(); 2];
    for (i, (from, to)) in [(x, y), (y, x)].into_iter().enumerate() {
        let mut arguments: [Handle; 3] = [
            (&raw const from).cast_mut().cast(),
            (&raw const to).cast_mut().cast(),
            (&raw const by).cast_mut().cast(),
        ];
        let params = kernel_node(function, &mut arguments, 32);
        // The second kernel's edge is a programmatic one and comes later.
        assert_eq!(
            call!(d, "cuGraphAddKernelNode_v2"(*mut Handle: &raw mut kernels[i], Handle: graph,
            *const Handle: &raw const up, usize: 1 - i, *const CUDA_KERNEL_NODE_PARAMS: &raw const params)),
            0
        );
    }
    let edge = CUgraphEdgeData { from_port: 1, to_port: 0, type_: 1, reserved: [0; 5] };
    assert_eq!(
        call!(d, "cuGraphAddDependencies_v2"(Handle: graph, *const Handle: &raw const kernels[0],
        *const Handle: &raw const kernels[1], *const CUgraphEdgeData: &raw const edge, usize: 1)),
        0
    );
    assert_ne!(
        call!(d, "cuGraphAddDependencies_v2"(Handle: graph, *const Handle: &raw const up,
        *const Handle: &raw const kernels[1], *const CUgraphEdgeData: &raw const edge, usize: 1)),
        0
    );
    let portless = CUgraphEdgeData { from_port: 0, ..edge };
    assert_ne!(
        call!(d, "cuGraphAddDependencies_v2"(Handle: graph, *const Handle: &raw const kernels[0],
        *const Handle: &raw const kernels[1], *const CUgraphEdgeData: &raw const portless, usize: 1)),
        0
    );
    let params = copy(false, host[32..].as_mut_ptr(), x);
    assert_eq!(
        call!(d, "cuGraphAddMemcpyNode"(*mut Handle: &raw mut down, Handle: graph,
        *const Handle: &raw const kernels[1], usize: 1, *const CUDA_MEMCPY3D: &raw const params, Handle: null_mut())),
        0
    );
    let (mut exec, mut stream): (Handle, Handle) = (null_mut(), null_mut());
    assert_eq!(
        call!(d, "cuGraphInstantiateWithFlags"(*mut Handle: &raw mut exec, Handle: graph, u64: 0)),
        0
    );
    assert_eq!(
        call!(d, "cuStreamCreateWithPriority"(*mut Handle: &raw mut stream, c_uint: 1, c_int: -1)),
        0
    );
    assert_eq!(call!(d, "cuGraphLaunch"(Handle: exec, Handle: stream)), 0);
    assert_eq!(call!(d, "cuStreamQuery"(Handle: stream)), 600);
    assert_eq!(call!(d, "cuStreamSynchronize"(Handle: stream)), 0);
    assert!((0..32).all(|i| host[32 + i] == 9.0 * (i + 1) as f32), "{host:?}");
    assert_eq!((fake.get("graph_launches"), fake.get("launches")), (1, 2));
    // The executable graph takes new arguments, the graph keeps its own.
    let again = 2.0_f32;
    let mut arguments: [Handle; 3] = [
        (&raw const y).cast_mut().cast(),
        (&raw const x).cast_mut().cast(),
        (&raw const again).cast_mut().cast(),
    ];
    let params = kernel_node(function, &mut arguments, 32);
    assert_eq!(
        call!(d, "cuGraphExecKernelNodeSetParams_v2"(Handle: exec, Handle: kernels[1],
        *const CUDA_KERNEL_NODE_PARAMS: &raw const params)),
        0
    );
    assert_eq!(call!(d, "cuGraphLaunch"(Handle: exec, Handle: stream)), 0);
    assert_eq!(call!(d, "cuStreamSynchronize"(Handle: stream)), 0);
    assert!((0..32).all(|i| host[32 + i] == 6.0 * (i + 1) as f32), "{host:?}");
    assert_eq!(fake.get("early_launches"), 1, "of two launches of two kernels");
    assert_eq!(call!(d, "cuMemFree_v2"(u64: y)), 0);
    assert_eq!(call!(d, "cuGraphLaunch"(Handle: exec, Handle: stream)), 0);
    assert_eq!(call!(d, "cuStreamSynchronize"(Handle: stream)), 700, "freed memory");
}

#[test]
fn refuses_what_a_driver_refuses() {
    let Some(fake) = FakeCuda::new() else { return };
    fake.set("memory", 1 << 20);
    let d = Driver::open(&fake);
    assert_eq!(d.alloc(16), Err(201), "no context yet");
    d.enter(0);
    assert_eq!(d.alloc(2 << 20), Err(2));
    assert_eq!(d.alloc(0), Err(1));
    let at = d.alloc(1024).unwrap();
    assert_eq!(
        call!(d, "cuMemsetD8Async"(u64: at + 1000, u8: 0, usize: 25, Handle: null_mut())),
        1
    );
    assert_eq!(call!(d, "cuMemFree_v2"(u64: at + 1)), 1);
    fake.set("fail_allocation", 3);
    assert_eq!(d.alloc(16), Err(2));
    let mut module: Handle = null_mut();
    for (bytes, code) in [
        (&b"not an image, but long enough to be looked at as one"[..], 200),
        (b".version 8.0\n.target sm_80   ", 218),
    ] {
        let image = bytes.as_ptr().cast();
        assert_eq!(
            call!(d, "cuModuleLoadData"(*mut Handle: &raw mut module, *const c_void: image)),
            code
        );
    }
    let mut cubin = image();
    let function = d.function(&cubin, "scale");
    cubin[18] = 190;
    let foreign = cubin.as_ptr().cast();
    assert_eq!(
        call!(d, "cuModuleLoadData"(*mut Handle: &raw mut module, *const c_void: foreign)),
        209
    );
    let mut arguments: [Handle; 3] = [null_mut(); 3];
    let launch = |threads: c_uint, shared: c_uint, arguments: *mut Handle| {
        call!(d, "cuLaunchKernel"(Handle: function, c_uint: 1, c_uint: 1, c_uint: 1, c_uint: threads, c_uint: 1, c_uint: 1,
            c_uint: shared, Handle: null_mut(), *mut Handle: arguments, *mut Handle: null_mut()))
    };
    assert_eq!(launch(2048, 0, arguments.as_mut_ptr()), 1);
    assert_eq!(
        launch(32, 64 << 10, arguments.as_mut_ptr()),
        1,
        "more shared memory has to be allowed first"
    );
}

#[test]
fn static_shared_memory_counts() {
    let Some(fake) = FakeCuda::new() else { return };
    let d = Driver::open(&fake);
    d.enter(0);
    let function = d.function(&image(), "many");
    let launch = || {
        call!(d, "cuLaunchKernel"(Handle: function, c_uint: 1, c_uint: 1, c_uint: 1, c_uint: 32, c_uint: 1,
            c_uint: 1, c_uint: 20 << 10, Handle: null_mut(), *mut Handle: null_mut(), *mut Handle: null_mut()))
    };
    assert_eq!(call!(d, "cuFuncSetAttribute"(Handle: function, c_uint: 8, c_int: 20 << 10)), 0);
    assert_eq!(launch(), 0);
    assert_eq!(call!(d, "cuStreamSynchronize"(Handle: null_mut())), 0);
    d.enter(1);
    let function = d.function(&image(), "many");
    let launched = call!(d, "cuLaunchKernel"(Handle: function, c_uint: 1, c_uint: 1, c_uint: 1, c_uint: 32, c_uint: 1,
        c_uint: 1, c_uint: 20 << 10, Handle: null_mut(), *mut Handle: null_mut(), *mut Handle: null_mut()));
    assert_eq!(launched, 0);
    assert_eq!(call!(d, "cuStreamSynchronize"(Handle: null_mut())), 719, "was not allowed");
}

#[test]
fn faults_stay_with_the_device() {
    let Some(fake) = FakeCuda::new() else { return };
    let d = Driver::open(&fake);
    d.enter(0);
    let function = d.function(&image(), "diverge");
    let launched = call!(d, "cuLaunchKernel"(Handle: function, c_uint: 1, c_uint: 1, c_uint: 1, c_uint: 32, c_uint: 1,
        c_uint: 1, c_uint: 0, Handle: null_mut(), *mut Handle: null_mut(), *mut Handle: null_mut()));
    assert_eq!(launched, 0);
    assert_eq!(call!(d, "cuStreamSynchronize"(Handle: null_mut())), 719);
    assert_eq!(d.alloc(16), Err(719));
    assert!(fake.message().contains("diverge"), "{}", fake.message());
    d.enter(1);
    assert!(d.alloc(16).is_ok());
    fake.set("devices", 0);
    assert_eq!(call!(d, "cuInit"(c_uint: 0)), 100);
}
