//! Sums between GPUs: gradients go from device to device through NCCL, and all else over the channel that the processes
//! have in common already.
//!
//! ```no_run
//! # fn task() -> flow_core::Result<()> {
//! use std::sync::Arc;
//!
//! use candle_core::Device;
//! use flow_core::train::Solo;
//! use flow_core::train::nccl::Nccl;
//!
//! # let world = Solo;
//! // `world` is the `Mpi` of the processes, say; each has a GPU of its own.
//! let devices = Nccl::over(Arc::new(world), &Device::new_cuda(0)?)?;
//! // Trainer::new(config, out, task)?.with_communicator(devices).run(&mut progress)?;
//! # drop(devices);
//! # Ok(())
//! # }
//! ```

use std::ops::Range;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::time::Duration;

use candle_core::backend::BackendStorage;
use candle_core::cuda_backend::cudarc::driver::DeviceRepr;
use candle_core::cuda_backend::cudarc::nccl::result::NcclError;
use candle_core::cuda_backend::cudarc::nccl::{Comm, Id, NcclType, ReduceOp};
use candle_core::cuda_backend::{CudaDType, CudaDevice};
use candle_core::{CpuStorage, CudaStorage, CustomOp1, DType, Device, Layout, Shape, Tensor};

use super::launch::{heard_nothing, patience};
use super::{Communicator, Summands};
use crate::{Error, Result};

/// Bytes of the name by which the processes find each other.
const NAME: usize = 128;

/// A channel whose tensors of a CUDA device are summed by NCCL; whatever is not on a device, and all that is no sum, takes
/// the channel beneath.
///
/// All ranks receive the same bits. Another number of GPUs, or other links between them, may sum in another order.
#[derive(Clone)]
pub struct Nccl {
    beneath: Arc<dyn Communicator>,
    sums: Sender<Sum>,
    patience: Duration,
}

impl std::fmt::Debug for Nccl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Nccl, rank {} of {}", self.rank(), self.world_size())
    }
}

/// A tensor to be summed, and where its sum is awaited.
struct Sum {
    own: Tensor,
    total: SyncSender<candle_core::Result<Tensor>>,
}

impl Nccl {
    /// Brings the devices of all ranks together. All ranks call it, each with a device that no other has.
    ///
    /// # Errors
    /// [`Error::Config`] for a device that is not CUDA's, for two ranks on one device, and where NCCL finds no way between
    /// them.
    pub fn over(beneath: Arc<dyn Communicator>, device: &Device) -> Result<Self> {
        let own = match device {
            Device::Cuda(device) => Ok(device.clone()),
            _ => Err(Error::config("NCCL", "sums between CUDA devices; this rank computes elsewhere")),
        };
        let (rank, ranks) = (beneath.rank(), beneath.world_size());
        let name = match (&own, rank) {
            (Ok(_), 0) => Id::new().map(|id| id.internal().map(|byte| byte as u8).to_vec()).map_err(|e| failed(&e)),
            _ => Ok(Vec::new()),
        };
        // Told even by a first rank that has failed: the others wait for it.
        let told = beneath.broadcast(name.as_ref().map(Vec::clone).unwrap_or_default())?;
        name?;
        let own = own?;
        let name = <[u8; NAME]>::try_from(told)
            .map_err(|_| Error::config("NCCL", "could not be started on the first rank"))?;
        let (sums, jobs) = channel();
        let (ready, started) = sync_channel(1);
        let id = Id::uninit(name.map(|byte| byte as std::ffi::c_char));
        // NCCL's handle belongs to one thread; that thread also lets the others give up waiting.
        std::thread::spawn(move || keep(&own, rank, ranks, id, &ready, jobs));
        let nccl = Nccl { beneath, sums, patience: patience() };
        nccl.wait(&started)??;
        Ok(nccl)
    }

    /// What the thread of the device says, unless it has waited for the others for too long.
    fn wait<T>(&self, said: &Receiver<T>) -> Result<T> {
        use std::sync::mpsc::RecvTimeoutError::{Disconnected, Timeout};
        said.recv_timeout(self.patience).map_err(|error| {
            let reason = match error {
                Timeout => heard_nothing(self.patience),
                Disconnected => "the thread of the device has ended".into(),
            };
            self.beneath.abort(&reason);
            Error::config("NCCL", reason)
        })
    }
}

impl Communicator for Nccl {
    fn rank(&self) -> usize {
        self.beneath.rank()
    }

    fn world_size(&self) -> usize {
        self.beneath.world_size()
    }

    fn all_reduce_sum(&self, values: Summands<'_>) -> Result<()> {
        self.beneath.all_reduce_sum(values)
    }

    fn all_reduce_tensor(&self, values: &Tensor) -> Result<Tensor> {
        if !values.device().is_cuda() || values.elem_count() == 0 {
            return self.beneath.all_reduce_tensor(values);
        }
        let (total, awaited) = sync_channel(1);
        let gone = || Error::config("NCCL", "the thread of the device has ended");
        self.sums.send(Sum { own: values.detach().contiguous()?, total }).map_err(|_| gone())?;
        Ok(self.wait(&awaited)??)
    }

    fn all_gather(&self, own: &[u8]) -> Result<Vec<Vec<u8>>> {
        self.beneath.all_gather(own)
    }

    fn broadcast(&self, bytes: Vec<u8>) -> Result<Vec<u8>> {
        self.beneath.broadcast(bytes)
    }

    fn barrier(&self) -> Result<()> {
        self.beneath.barrier()
    }

    fn abort(&self, reason: &str) {
        self.beneath.abort(reason);
    }
}

fn failed(error: &NcclError) -> Error {
    Error::config("NCCL", format!("{:?}; NCCL_DEBUG=INFO makes it say more", error.0))
}

/// Joins the others and sums what it is given, until nobody can give it anything any more.
fn keep(device: &CudaDevice, rank: usize, ranks: usize, id: Id, ready: &SyncSender<Result<()>>, jobs: Receiver<Sum>) {
    let stream = device.cuda_stream();
    let joined = match stream.context().bind_to_thread() {
        Ok(()) => Comm::from_rank(stream.clone(), rank, ranks, id).map_err(|e| failed(&e)),
        Err(e) => Err(Error::config("NCCL", e.to_string())),
    };
    let (comm, answer) = match joined {
        Ok(comm) => (Some(comm), Ok(())),
        Err(error) => (None, Err(error)),
    };
    // Nobody is left to be told when these two cannot be sent.
    let _ = ready.send(answer);
    let Some(comm) = comm else { return };
    for Sum { own, total } in jobs {
        let sum = own.apply_op1_no_bwd(&AllReduce(&comm));
        // The step waits for its gradients in any case, and a rank that is gone is noticed here and nowhere else.
        let sum = sum.and_then(|sum| stream.synchronize().map(|()| sum).map_err(candle_core::Error::wrap));
        let broken = sum.is_err();
        let _ = total.send(sum);
        if broken {
            // To leave the others in good order is no longer possible, and to try would panic.
            std::mem::forget(comm);
            return;
        }
    }
}

/// The sum over all ranks, as an operation of Candle.
struct AllReduce<'a>(&'a Comm);

impl AllReduce<'_> {
    fn sum<T: CudaDType + NcclType + DeviceRepr>(
        &self,
        own: &CudaStorage,
        part: Range<usize>,
    ) -> candle_core::Result<CudaStorage> {
        let values = own.as_cuda_slice::<T>()?.slice(part);
        // SAFETY: the sum writes every element before anything reads one.
        let mut total = unsafe { own.device.alloc::<T>(values.len())? };
        self.0
            .all_reduce(&values, &mut total, &ReduceOp::Sum)
            .map_err(|e| candle_core::Error::msg(failed(&e).to_string()))?;
        Ok(CudaStorage::wrap_cuda_slice(total, own.device.clone()))
    }
}

impl CustomOp1 for AllReduce<'_> {
    fn name(&self) -> &'static str {
        "sum over ranks"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        candle_core::bail!("NCCL sums between CUDA devices")
    }

    fn cuda_fwd(&self, own: &CudaStorage, layout: &Layout) -> candle_core::Result<(CudaStorage, Shape)> {
        let Some((start, end)) = layout.contiguous_offsets() else {
            candle_core::bail!("a strided tensor cannot be summed over ranks")
        };
        let total = match own.dtype() {
            DType::F32 => self.sum::<f32>(own, start..end)?,
            DType::F64 => self.sum::<f64>(own, start..end)?,
            other => candle_core::bail!("f32 and f64 can be summed over ranks, not {other:?}"),
        };
        Ok((total, layout.shape().clone()))
    }
}
