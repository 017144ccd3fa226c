//! Dispatches to be submitted together, and what a backend keeps from one submission to the next.

use std::collections::HashMap;

use bytemuck::NoUninit;

use super::clock::Clock;
use super::context::{Context, Pipeline};
use super::kernel::{Buffer, Kernel};
use crate::{Error, Result};

/// Parameters of dispatches lie this far apart: what every device accepts as an offset.
const PARAMS_ALIGNMENT: usize = 256;

/// Dispatches in one submission: enough to keep a device busy, few enough for its watchdog.
const DISPATCHES_PER_SUBMISSION: usize = 64;

/// What the submissions of one backend share.
#[derive(Debug)]
pub(super) struct Recorder {
    /// Parameters of the dispatches of one submission after another: each is done with them before the next are
    /// written, since a device works through writes and submissions in their order.
    params: wgpu::Buffer,
    bind_groups: HashMap<(&'static str, Vec<wgpu::Buffer>), wgpu::BindGroup>,
    /// How many storage buffers there were when the bind groups were made.
    buffers_made: u64,
    pub(super) clock: Option<Clock>,
}

impl Recorder {
    pub(super) fn new(context: &Context) -> Result<Self> {
        Ok(Self {
            params: create_params(context, DISPATCHES_PER_SUBMISSION * PARAMS_ALIGNMENT)?,
            bind_groups: HashMap::new(),
            buffers_made: 0,
            clock: context.has_timestamps().then(|| Clock::new(context)).transpose()?,
        })
    }

    /// Bind groups keep their buffers alive: before larger ones are made, those that they replace are let go.
    pub(super) fn forget_buffers(&mut self) {
        self.bind_groups.clear();
    }

    /// Puts the parameters where the dispatches look for them.
    fn write_params(&mut self, context: &Context, params: &[u8]) -> Result<()> {
        if params.len() as u64 > self.params.size() {
            self.params = create_params(context, params.len().next_power_of_two())?;
            self.bind_groups.clear();
        }
        if self.buffers_made != context.buffers_made() {
            self.buffers_made = context.buffers_made();
            self.forget_buffers();
        }
        context.queue().write_buffer(&self.params, 0, params);
        Ok(())
    }

    /// Dispatches of one kernel on the same buffers share theirs.
    fn bind_group(&mut self, device: &wgpu::Device, dispatch: &Dispatch) -> wgpu::BindGroup {
        let params = wgpu::BufferBinding {
            buffer: &self.params,
            offset: 0,
            size: wgpu::BufferSize::new(dispatch.kernel.params_bytes as u64),
        };
        let make = || {
            let mut entries =
                vec![wgpu::BindGroupEntry { binding: 0, resource: wgpu::BindingResource::Buffer(params) }];
            entries.extend(dispatch.buffers.iter().enumerate().map(|(i, buffer)| wgpu::BindGroupEntry {
                binding: i as u32 + 1,
                resource: buffer.as_entire_binding(),
            }));
            device.create_bind_group(&wgpu::BindGroupDescriptor {
                label: Some(dispatch.kernel.name),
                layout: &dispatch.pipeline.layout,
                entries: &entries,
            })
        };
        self.bind_groups.entry((dispatch.kernel.name, dispatch.buffers.clone())).or_insert_with(make).clone()
    }
}

fn create_params(context: &Context, bytes: usize) -> Result<wgpu::Buffer> {
    context.guard(|device| {
        Ok(device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("params"),
            size: bytes as u64,
            usage: wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        }))
    })
}

/// Dispatches to be submitted together; each sees what those before it wrote.
#[derive(Debug)]
pub(super) struct Commands<'a> {
    context: &'a Context,
    recorder: &'a mut Recorder,
    params: Vec<u8>,
    dispatches: Vec<Dispatch>,
}

#[derive(Debug)]
struct Dispatch {
    pipeline: Pipeline,
    kernel: &'static Kernel,
    buffers: Vec<wgpu::Buffer>,
    params_offset: u32,
    groups: [u32; 3],
}

impl<'a> Commands<'a> {
    pub(super) fn new(context: &'a Context, recorder: &'a mut Recorder) -> Self {
        Self { context, recorder, params: Vec::new(), dispatches: Vec::new() }
    }

    /// Adds a dispatch of so many workgroups along each axis; none where one of them is zero.
    pub(super) fn dispatch<P: NoUninit>(
        &mut self,
        kernel: &'static Kernel,
        params: &P,
        buffers: &[&Buffer],
        groups: [u32; 3],
    ) -> Result<()> {
        if groups.contains(&0) {
            return Ok(());
        }
        let (requested, allowed) = (groups[0].max(groups[1]).max(groups[2]), self.context.max_groups());
        if requested > allowed {
            let what = format!("a dispatch of {} (workgroups along one axis)", kernel.name);
            return Err(Error::Limit { what, requested: requested.into(), allowed: allowed.into() });
        }
        let offset = self.params.len();
        self.params.extend_from_slice(bytemuck::bytes_of(params));
        self.params.resize(self.params.len().next_multiple_of(PARAMS_ALIGNMENT), 0);
        self.dispatches.push(Dispatch {
            pipeline: self.context.pipeline(kernel)?,
            kernel,
            buffers: buffers.iter().map(|b| b.inner().clone()).collect(),
            params_offset: offset as u32,
            groups,
        });
        Ok(())
    }

    /// Hands everything to the device, in order, and returns without waiting for it.
    pub(super) fn submit(self) -> Result<()> {
        let Self { context, recorder, params, dispatches } = self;
        if dispatches.is_empty() {
            return Ok(());
        }
        recorder.write_params(context, &params)?;
        context.guard(|device| {
            for part in dispatches.chunks(DISPATCHES_PER_SUBMISSION) {
                let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
                // A pass for each kernel: passes are what a device takes the time of.
                for run in part.chunk_by(|a, b| a.kernel.name == b.kernel.name) {
                    let bound: Vec<_> = run.iter().map(|d| recorder.bind_group(device, d)).collect();
                    let timestamp_writes = recorder.clock.as_mut().and_then(|c| c.time(run[0].kernel.name));
                    let descriptor = wgpu::ComputePassDescriptor { label: Some(run[0].kernel.name), timestamp_writes };
                    let mut pass = encoder.begin_compute_pass(&descriptor);
                    for (dispatch, bind_group) in run.iter().zip(&bound) {
                        pass.set_pipeline(&dispatch.pipeline.compute);
                        pass.set_bind_group(0, bind_group, &[dispatch.params_offset]);
                        let [x, y, z] = dispatch.groups;
                        pass.dispatch_workgroups(x, y, z);
                    }
                }
                context.queue().submit([encoder.finish()]);
            }
            Ok(())
        })
    }
}
