//! Kernels, the buffers they work on, and lists of dispatches to be submitted.

use std::collections::HashMap;

use bytemuck::{NoUninit, Pod};

use super::context::{Context, Pipeline};
use crate::{Error, Result};

/// What a kernel does with a buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    Read,
    Write,
}

/// A shader and what it expects. Binding 0 of group 0 holds its `Params`, the bindings after it its buffers.
#[derive(Debug)]
pub(super) struct Kernel {
    /// The stem of the shader's file.
    pub(super) name: &'static str,
    pub(super) source: &'static str,
    /// Invocations of a workgroup, all along x: the shader's `WORKGROUP`.
    pub(super) workgroup: u32,
    pub(super) params_bytes: usize,
    pub(super) buffers: &'static [Access],
}

/// Parameters of dispatches lie this far apart: what every device accepts as an offset.
const PARAMS_ALIGNMENT: usize = 256;

/// Dispatches in one submission: enough to keep a device busy, few enough for its watchdog.
const DISPATCHES_PER_SUBMISSION: usize = 64;

impl Kernel {
    /// Workgroups for `n` invocations along x.
    pub(super) fn groups(&self, n: usize) -> u32 {
        (n as u32).div_ceil(self.workgroup)
    }
}

pub(super) fn compile(device: &wgpu::Device, kernel: &Kernel) -> Pipeline {
    let entry = |binding: usize, ty: wgpu::BufferBindingType, has_dynamic_offset: bool, bytes: u64| {
        wgpu::BindGroupLayoutEntry {
            binding: binding as u32,
            visibility: wgpu::ShaderStages::COMPUTE,
            ty: wgpu::BindingType::Buffer { ty, has_dynamic_offset, min_binding_size: wgpu::BufferSize::new(bytes) },
            count: None,
        }
    };
    let mut entries = vec![entry(0, wgpu::BufferBindingType::Uniform, true, kernel.params_bytes as u64)];
    entries.extend(kernel.buffers.iter().enumerate().map(|(i, access)| {
        let ty = wgpu::BufferBindingType::Storage { read_only: *access == Access::Read };
        entry(i + 1, ty, false, 0)
    }));
    let layout = device
        .create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label: Some(kernel.name), entries: &entries });
    let pipeline_layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
        label: Some(kernel.name),
        bind_group_layouts: &[Some(&layout)],
        immediate_size: 0,
    });
    let module = device.create_shader_module(wgpu::ShaderModuleDescriptor {
        label: Some(kernel.name),
        source: wgpu::ShaderSource::Wgsl(kernel.source.into()),
    });
    let compute = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
        label: Some(kernel.name),
        layout: Some(&pipeline_layout),
        module: &module,
        entry_point: Some("main"),
        compilation_options: wgpu::PipelineCompilationOptions {
            constants: &[("WORKGROUP", f64::from(kernel.workgroup))],
            ..wgpu::PipelineCompilationOptions::default()
        },
        cache: None,
    });
    Pipeline { compute, layout }
}

/// A storage buffer that grows, never shrinks.
#[derive(Debug)]
pub(super) struct Buffer {
    label: &'static str,
    inner: wgpu::Buffer,
}

/// Smallest buffer: room for the header and one element of any list.
const MIN_BUFFER_BYTES: u64 = 256;

impl Buffer {
    pub(super) fn new(context: &Context, label: &'static str) -> Result<Self> {
        Ok(Self { label, inner: create(context, label, MIN_BUFFER_BYTES)? })
    }

    /// Makes room for `n` elements; what was in the buffer is lost where it had to grow.
    pub(super) fn reserve<T>(&mut self, context: &Context, n: usize) -> Result<()> {
        // Copies move words: a buffer of bytes ends at a multiple of four.
        let bytes = (n as u64 * size_of::<T>() as u64).next_multiple_of(4);
        if bytes > self.inner.size() {
            self.inner = create(context, self.label, bytes)?;
        }
        Ok(())
    }

    /// Fills the beginning of the buffer.
    pub(super) fn upload<T: NoUninit>(&mut self, context: &Context, values: &[T]) -> Result<()> {
        self.reserve::<T>(context, values.len())?;
        let bytes: &[u8] = bytemuck::cast_slice(values);
        let (words, tail) = bytes.split_at(bytes.len() & !3);
        context.guard(|_| {
            if !words.is_empty() {
                context.queue().write_buffer(&self.inner, 0, words);
            }
            if !tail.is_empty() {
                let mut last = [0; 4];
                last[..tail.len()].copy_from_slice(tail);
                context.queue().write_buffer(&self.inner, words.len() as u64, &last);
            }
            Ok(())
        })
    }

    /// The first `n` elements, after all work submitted before.
    pub(super) fn read<T: Pod>(&self, context: &Context, n: usize) -> Result<Vec<T>> {
        context.read(&self.inner, 0, n)
    }
}

fn create(context: &Context, label: &'static str, bytes: u64) -> Result<wgpu::Buffer> {
    let allowed = context.max_buffer_bytes();
    if bytes > allowed {
        let what = format!("the {label} buffer on {} (bytes)", context.description().name);
        return Err(Error::Limit { what, requested: bytes, allowed });
    }
    context.guard(|device| {
        Ok(device.create_buffer(&wgpu::BufferDescriptor {
            label: Some(label),
            size: bytes,
            usage: wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        }))
    })
}

/// A list that kernels append to: a counter, then elements in no order.
#[derive(Debug)]
pub(super) struct AppendList<T> {
    buffer: Buffer,
    capacity: usize,
    element: std::marker::PhantomData<T>,
}

impl<T: Pod> AppendList<T> {
    const COUNTER_BYTES: usize = 4;

    /// A list with room for `capacity` elements at first.
    pub(super) fn new(context: &Context, label: &'static str, capacity: usize) -> Result<Self> {
        let mut list = Self { buffer: Buffer::new(context, label)?, capacity: 0, element: std::marker::PhantomData };
        list.grow(context, capacity)?;
        Ok(list)
    }

    fn grow(&mut self, context: &Context, capacity: usize) -> Result<()> {
        self.buffer.reserve::<u8>(context, Self::COUNTER_BYTES + capacity * size_of::<T>())?;
        self.capacity = capacity;
        Ok(())
    }

    /// Runs `append` on the emptied list and returns what it appended, in no order. Where the room did not suffice the
    /// list is grown and `append` runs again. It is given the list's buffer and its capacity.
    pub(super) fn fill(
        &mut self,
        context: &Context,
        mut append: impl FnMut(&Buffer, u32) -> Result<()>,
    ) -> Result<Vec<T>> {
        loop {
            self.buffer.upload(context, &[0_u32])?;
            append(&self.buffer, self.capacity as u32)?;
            let n = self.buffer.read::<u32>(context, 1)?.first().map_or(0, |n| *n as usize);
            if n <= self.capacity {
                return context.read(&self.buffer.inner, Self::COUNTER_BYTES as u64, n);
            }
            self.grow(context, n.next_power_of_two())?;
        }
    }
}

/// Dispatches to be submitted together; each sees what those before it wrote.
#[derive(Debug)]
pub(super) struct Commands<'a> {
    context: &'a Context,
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
    pub(super) fn new(context: &'a Context) -> Self {
        Self { context, params: Vec::new(), dispatches: Vec::new() }
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
        let offset = self.params.len().next_multiple_of(PARAMS_ALIGNMENT);
        self.params.resize(offset, 0);
        self.params.extend_from_slice(bytemuck::bytes_of(params));
        self.dispatches.push(Dispatch {
            pipeline: self.context.pipeline(kernel)?,
            kernel,
            buffers: buffers.iter().map(|b| b.inner.clone()).collect(),
            params_offset: offset as u32,
            groups,
        });
        Ok(())
    }

    /// Hands everything to the device, in order, and returns without waiting for it.
    pub(super) fn submit(self) -> Result<()> {
        if self.dispatches.is_empty() {
            return Ok(());
        }
        self.context.guard(|device| {
            let params = device.create_buffer(&wgpu::BufferDescriptor {
                label: Some("params"),
                size: self.params.len().next_multiple_of(PARAMS_ALIGNMENT) as u64,
                usage: wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST,
                mapped_at_creation: false,
            });
            self.context.queue().write_buffer(&params, 0, &self.params);
            let mut groups = BindGroups { device, params: &params, known: HashMap::new() };
            for part in self.dispatches.chunks(DISPATCHES_PER_SUBMISSION) {
                let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
                let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
                for dispatch in part {
                    pass.set_pipeline(&dispatch.pipeline.compute);
                    pass.set_bind_group(0, &groups.of(dispatch), &[dispatch.params_offset]);
                    let [x, y, z] = dispatch.groups;
                    pass.dispatch_workgroups(x, y, z);
                }
                drop(pass);
                self.context.queue().submit([encoder.finish()]);
            }
            Ok(())
        })
    }
}

/// Bind groups of one submission: dispatches of one kernel on the same buffers share theirs.
struct BindGroups<'a> {
    device: &'a wgpu::Device,
    params: &'a wgpu::Buffer,
    known: HashMap<(&'static str, Vec<wgpu::Buffer>), wgpu::BindGroup>,
}

impl BindGroups<'_> {
    fn of(&mut self, dispatch: &Dispatch) -> wgpu::BindGroup {
        let make = || {
            let params = wgpu::BufferBinding {
                buffer: self.params,
                offset: 0,
                size: wgpu::BufferSize::new(dispatch.kernel.params_bytes as u64),
            };
            let mut entries =
                vec![wgpu::BindGroupEntry { binding: 0, resource: wgpu::BindingResource::Buffer(params) }];
            entries.extend(dispatch.buffers.iter().enumerate().map(|(i, buffer)| wgpu::BindGroupEntry {
                binding: i as u32 + 1,
                resource: buffer.as_entire_binding(),
            }));
            self.device.create_bind_group(&wgpu::BindGroupDescriptor {
                label: Some(dispatch.kernel.name),
                layout: &dispatch.pipeline.layout,
                entries: &entries,
            })
        };
        self.known.entry((dispatch.kernel.name, dispatch.buffers.clone())).or_insert_with(make).clone()
    }
}
