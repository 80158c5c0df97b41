//! Flows that are fitted to densities: known answers, refusals, and a fit that was stopped.

mod known;
mod refusals;

use candle_core::{DType, Device};
use flow_core::ParamStore;

fn store(dtype: DType) -> ParamStore {
    ParamStore::new(3, dtype, &Device::Cpu)
}
