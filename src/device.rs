//! Which device computes.

use std::str::FromStr;

use crate::backend::Backend;
use crate::backend::cpu::CpuBackend;
#[cfg(feature = "gpu")]
use crate::backend::gpu;
use crate::backend::timed::Timed;
use crate::{Error, Result};

/// Where to compute.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Device {
    /// The best hardware GPU, else the CPU. Software GPU drivers are slower than the CPU backend and never chosen.
    #[default]
    Auto,
    /// The CPU, on all cores.
    Cpu,
    /// The best GPU there is, a software driver if there is no other.
    Gpu,
    /// The first adapter whose name contains this, upper and lower case alike.
    Named(String),
}

impl FromStr for Device {
    type Err = Error;

    /// `auto`, `cpu` or `gpu`, in upper or lower case; anything else is (part of) an adapter's name.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] when the text is empty.
    fn from_str(text: &str) -> Result<Self> {
        Ok(match text.to_lowercase().as_str() {
            "" => return Err(Error::Config("device: the name is empty".to_owned())),
            "auto" => Self::Auto,
            "cpu" => Self::Cpu,
            "gpu" => Self::Gpu,
            _ => Self::Named(text.to_owned()),
        })
    }
}

/// A device that can be asked for by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceInfo {
    /// The adapter's name, or `"cpu"`.
    pub name: String,
    /// How it is reached: `"vulkan"`, `"metal"`, `"dx12"`, or `"rayon"` for the CPU backend.
    pub backend: String,
    /// A driver that computes on the CPU, for tests.
    pub is_software: bool,
}

/// The CPU backend's name.
pub(crate) const CPU_NAME: &str = "cpu";

/// Every device of this machine, the CPU first.
///
/// ```
/// assert_eq!(skystreak::devices()[0].name, "cpu");
/// ```
#[must_use]
pub fn devices() -> Vec<DeviceInfo> {
    let cpu = DeviceInfo { name: CPU_NAME.into(), backend: "rayon".into(), is_software: false };
    #[cfg(feature = "gpu")]
    let adapters = gpu::adapters();
    #[cfg(not(feature = "gpu"))]
    let adapters = Vec::new();
    std::iter::once(cpu).chain(adapters).collect()
}

/// An opened device, which makes as many backends as are needed.
pub(crate) enum Engine {
    Cpu,
    #[cfg(feature = "gpu")]
    Gpu(gpu::Engine),
}

impl Engine {
    pub(crate) fn is_cpu(&self) -> bool {
        matches!(self, Self::Cpu)
    }

    pub(crate) fn open(device: &Device) -> Result<Self> {
        match device {
            Device::Cpu => Ok(Self::Cpu),
            Device::Named(name) if name.eq_ignore_ascii_case(CPU_NAME) => Ok(Self::Cpu),
            #[cfg(feature = "gpu")]
            Device::Auto => Ok(gpu::Engine::open_hardware().map_or(Self::Cpu, Self::Gpu)),
            #[cfg(feature = "gpu")]
            Device::Gpu => gpu::Engine::open_any().map(Self::Gpu),
            #[cfg(feature = "gpu")]
            Device::Named(name) => gpu::Engine::open_named(name).map(Self::Gpu),
            #[cfg(not(feature = "gpu"))]
            Device::Auto => Ok(Self::Cpu),
            #[cfg(not(feature = "gpu"))]
            Device::Gpu | Device::Named(_) => {
                Err(crate::Error::Device("this build has no GPU backend: it was made without the feature `gpu`".into()))
            }
        }
    }

    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Cpu => CPU_NAME,
            #[cfg(feature = "gpu")]
            Self::Gpu(engine) => engine.name(),
        }
    }

    pub(crate) fn backend(&self) -> Result<Timed> {
        let inner: Box<dyn Backend> = match self {
            Self::Cpu => Box::<CpuBackend>::default(),
            #[cfg(feature = "gpu")]
            Self::Gpu(engine) => engine.backend()?,
        };
        Ok(Timed::new(inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_read_from_text() {
        for (text, device) in [("auto", Device::Auto), ("CPU", Device::Cpu), ("gpu", Device::Gpu)] {
            assert_eq!(text.parse::<Device>().unwrap(), device);
        }
        assert_eq!("RTX 4090".parse::<Device>().unwrap(), Device::Named("RTX 4090".to_owned()));
        assert!(matches!("".parse::<Device>(), Err(Error::Config(_))));
    }
}
