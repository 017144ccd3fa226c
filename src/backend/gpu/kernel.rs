//! Kernels, and the buffers they work on.

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
    /// The stem of the shader's file, with what its constants make of it.
    pub(super) name: &'static str,
    pub(super) source: &'static str,
    /// Invocations of a workgroup, all along x: the shader's `WORKGROUP`.
    pub(super) workgroup: u32,
    pub(super) params_bytes: usize,
    pub(super) buffers: &'static [Access],
    /// Further constants of the shader: one source for two kernels.
    pub(super) constants: &'static [(&'static str, f64)],
}

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
    let mut constants = vec![("WORKGROUP", f64::from(kernel.workgroup))];
    constants.extend_from_slice(kernel.constants);
    let compute = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
        label: Some(kernel.name),
        layout: Some(&pipeline_layout),
        module: &module,
        entry_point: Some("main"),
        compilation_options: wgpu::PipelineCompilationOptions {
            constants: &constants,
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

    pub(super) fn inner(&self) -> &wgpu::Buffer {
        &self.inner
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
    context.count_new_buffer();
    context.guard(|device| {
        Ok(device.create_buffer(&wgpu::BufferDescriptor {
            label: Some(label),
            size: bytes,
            usage: wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        }))
    })
}

/// Room for `n` elements behind a header and for more, as far as the device allows it.
pub(super) fn with_room_to_spare<T>(context: &Context, n: usize, header_bytes: usize) -> usize {
    let allowed = (context.max_buffer_bytes() as usize).saturating_sub(header_bytes) / size_of::<T>();
    n.next_power_of_two().min(allowed).max(n)
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
            self.grow(context, with_room_to_spare::<T>(context, n, Self::COUNTER_BYTES))?;
        }
    }
}
