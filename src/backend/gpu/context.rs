//! The device: the only file that creates one.
//!
//! A [`Context`] is shared by all backends on one device. It keeps the compiled kernels and turns whatever the device
//! reports, at the time or later, into [`Error::Device`].

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Mutex, PoisonError};

use super::kernel::{Kernel, compile};
use crate::device::DeviceInfo;
use crate::{Error, Result};

fn describe(adapter: &wgpu::Adapter) -> DeviceInfo {
    let info = adapter.get_info();
    DeviceInfo {
        name: info.name,
        backend: info.backend.to_string(),
        is_software: info.device_type == wgpu::DeviceType::Cpu,
    }
}

/// Which adapter to open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AdapterChoice<'a> {
    /// The best that is not software.
    Hardware,
    /// The best of all, software included.
    Any,
    /// The best whose name holds this text, in upper or lower case.
    Named(&'a str),
}

/// All adapters that can compute, best first.
pub(crate) fn adapters() -> Vec<DeviceInfo> {
    ranked_adapters().iter().map(describe).collect()
}

fn ranked_adapters() -> Vec<wgpu::Adapter> {
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle_from_env());
    // Vulkan, Metal and DX12. Not OpenGL: Mesa 22.3 drops two invocations of 64 in the fit, and says nothing.
    let mut adapters = pollster::block_on(instance.enumerate_adapters(wgpu::Backends::PRIMARY));
    let computes = wgpu::DownlevelFlags::COMPUTE_SHADERS;
    adapters.retain(|a| a.get_downlevel_capabilities().flags.contains(computes));
    adapters.sort_by_key(|a| match a.get_info().device_type {
        wgpu::DeviceType::DiscreteGpu => 0,
        wgpu::DeviceType::IntegratedGpu | wgpu::DeviceType::VirtualGpu => 1,
        wgpu::DeviceType::Other => 2,
        wgpu::DeviceType::Cpu => 3,
    });
    adapters
}

/// Keeps the first fault: what follows it is its consequence.
fn note(fault: &Mutex<Option<String>>, message: String) {
    fault.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(message);
}

/// An open device with its compiled kernels.
pub(crate) struct Context {
    device: wgpu::Device,
    queue: wgpu::Queue,
    limits: wgpu::Limits,
    description: DeviceInfo,
    pipelines: Mutex<HashMap<&'static str, Pipeline>>,
    /// Storage buffers made so far: what was bound before the last one may be gone.
    buffers_made: AtomicU64,
    has_timestamps: bool,
    /// What the device reported outside of any call, once and for all.
    fault: Arc<Mutex<Option<String>>>,
}

/// A compiled kernel.
#[derive(Debug, Clone)]
pub(super) struct Pipeline {
    pub(super) compute: wgpu::ComputePipeline,
    pub(super) layout: wgpu::BindGroupLayout,
}

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context").field("description", &self.description).finish_non_exhaustive()
    }
}

impl Context {
    /// Opens a device.
    ///
    /// # Errors
    ///
    /// [`Error::Device`] where no adapter fits the choice, or the device does not open.
    pub(crate) fn open(choice: AdapterChoice<'_>) -> Result<Arc<Self>> {
        let fits = |d: &DeviceInfo| match choice {
            AdapterChoice::Hardware => !d.is_software,
            AdapterChoice::Any => true,
            AdapterChoice::Named(part) => d.name.to_lowercase().contains(&part.to_lowercase()),
        };
        let adapter = ranked_adapters().into_iter().find(|a| fits(&describe(a))).ok_or_else(|| {
            Error::Device(match choice {
                AdapterChoice::Hardware => "no GPU found (software adapters have to be asked for by name)".into(),
                AdapterChoice::Any => "no adapter found".into(),
                AdapterChoice::Named(part) => format!("no adapter with '{part}' in its name"),
            })
        })?;
        let limits = adapter.limits();
        let timestamps = adapter.features() & wgpu::Features::TIMESTAMP_QUERY;
        let request = wgpu::DeviceDescriptor {
            label: Some("skystreak"),
            required_features: timestamps,
            required_limits: limits.clone(),
            ..wgpu::DeviceDescriptor::default()
        };
        let (device, queue) = pollster::block_on(adapter.request_device(&request))
            .map_err(|e| Error::Device(format!("{}: {e}", adapter.get_info().name)))?;
        let fault = Arc::new(Mutex::new(None));
        let (on_error, on_loss) = (fault.clone(), fault.clone());
        device.on_uncaptured_error(Arc::new(move |e: wgpu::Error| note(&on_error, e.to_string())));
        device.set_device_lost_callback(move |reason, message| {
            // Dropping the device at the end is no loss.
            if reason != wgpu::DeviceLostReason::Destroyed {
                note(&on_loss, format!("lost: {message}"));
            }
        });
        Ok(Arc::new(Self {
            limits,
            description: describe(&adapter),
            pipelines: Mutex::default(),
            buffers_made: AtomicU64::new(0),
            has_timestamps: !timestamps.is_empty(),
            fault,
            device,
            queue,
        }))
    }

    pub(crate) fn description(&self) -> &DeviceInfo {
        &self.description
    }

    /// Largest storage buffer, bytes.
    pub(super) fn max_buffer_bytes(&self) -> u64 {
        // Storage bindings are bound whole; sizes have to be multiples of four.
        self.limits.max_storage_buffer_binding_size.min(self.limits.max_buffer_size) & !3
    }

    pub(super) fn max_groups(&self) -> u32 {
        self.limits.max_compute_workgroups_per_dimension
    }

    /// The device can tell when a pass began and ended.
    pub(super) fn has_timestamps(&self) -> bool {
        self.has_timestamps
    }

    pub(super) fn count_new_buffer(&self) {
        self.buffers_made.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn buffers_made(&self) -> u64 {
        self.buffers_made.load(Ordering::Relaxed)
    }

    pub(super) fn queue(&self) -> &wgpu::Queue {
        &self.queue
    }

    /// Runs calls to the device and reports what went wrong in them, or before them, as an error.
    pub(super) fn guard<T>(&self, calls: impl FnOnce(&wgpu::Device) -> Result<T>) -> Result<T> {
        let filters = [wgpu::ErrorFilter::Validation, wgpu::ErrorFilter::OutOfMemory, wgpu::ErrorFilter::Internal];
        let scopes = filters.map(|filter| self.device.push_error_scope(filter));
        let outcome = calls(&self.device);
        // Scopes are a stack: the last one opened is closed first.
        let caught = scopes.into_iter().rev().filter_map(|scope| pollster::block_on(scope.pop())).last();
        let fault = self.fault.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match caught.map(|e| e.to_string()).or(fault) {
            Some(message) => Err(Error::Device(format!("{}: {message}", self.description.name))),
            None => outcome,
        }
    }

    /// The compiled kernel; compiled the first time it is asked for.
    pub(super) fn pipeline(&self, kernel: &Kernel) -> Result<Pipeline> {
        let mut pipelines = self.pipelines.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pipeline) = pipelines.get(kernel.name) {
            return Ok(pipeline.clone());
        }
        let pipeline = self.guard(|device| Ok(compile(device, kernel)))?;
        pipelines.insert(kernel.name, pipeline.clone());
        Ok(pipeline)
    }

    /// Copies part of a buffer to main memory, when all work before it is done.
    pub(super) fn read<T: bytemuck::Pod>(&self, buffer: &wgpu::Buffer, first_byte: u64, n: usize) -> Result<Vec<T>> {
        if n == 0 {
            return Ok(Vec::new());
        }
        let bytes = (n * size_of::<T>()) as u64;
        self.guard(|device| {
            let staging = device.create_buffer(&wgpu::BufferDescriptor {
                label: Some("staging"),
                size: bytes,
                usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
                mapped_at_creation: false,
            });
            let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
            encoder.copy_buffer_to_buffer(buffer, first_byte, &staging, 0, bytes);
            let submission = self.queue.submit([encoder.finish()]);
            let failed = |what: String| Error::Device(format!("{}: reading back: {what}", self.description.name));
            let (sender, receiver) = mpsc::channel();
            // Nobody listens only where the wait below has failed, and that is reported.
            staging.map_async(wgpu::MapMode::Read, .., move |result| drop(sender.send(result)));
            // Other backends' work, submitted since, is not waited for.
            let wait = wgpu::PollType::Wait { submission_index: Some(submission), timeout: None };
            device.poll(wait).map_err(|e| failed(e.to_string()))?;
            receiver.recv().map_err(|e| failed(e.to_string()))?.map_err(|e| failed(e.to_string()))?;
            let mapped = staging.get_mapped_range(..).map_err(|e| failed(e.to_string()))?;
            let mut values = vec![T::zeroed(); n];
            bytemuck::cast_slice_mut(&mut values).copy_from_slice(&mapped);
            Ok(values)
        })
    }
}
