//! The time that kernels take on the device, by its own clock.

use super::context::Context;
use crate::Result;
use crate::backend::timed::Times;

/// Passes that are timed between two readings; what comes after them is not.
const MOST_PASSES: usize = 2048;

const BYTES: u64 = size_of::<u64>() as u64;

/// Two timestamps for each pass.
#[derive(Debug)]
pub(super) struct Clock {
    queries: wgpu::QuerySet,
    ticks: wgpu::Buffer,
    kernels: Vec<&'static str>,
}

impl Clock {
    pub(super) fn new(context: &Context) -> Result<Self> {
        context.guard(|device| {
            Ok(Self {
                queries: device.create_query_set(&wgpu::QuerySetDescriptor {
                    label: Some("timestamps"),
                    ty: wgpu::QueryType::Timestamp,
                    count: 2 * MOST_PASSES as u32,
                }),
                ticks: device.create_buffer(&wgpu::BufferDescriptor {
                    label: Some("timestamps"),
                    size: 2 * MOST_PASSES as u64 * BYTES,
                    usage: wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC,
                    mapped_at_creation: false,
                }),
                kernels: Vec::new(),
            })
        })
    }

    /// Where the next pass, of this kernel, puts its timestamps.
    pub(super) fn time(&mut self, kernel: &'static str) -> Option<wgpu::ComputePassTimestampWrites<'_>> {
        let first = 2 * self.kernels.len() as u32;
        if self.kernels.len() == MOST_PASSES {
            return None;
        }
        self.kernels.push(kernel);
        Some(wgpu::ComputePassTimestampWrites {
            query_set: &self.queries,
            beginning_of_pass_write_index: Some(first),
            end_of_pass_write_index: Some(first + 1),
        })
    }

    /// Milliseconds of each kernel since last asked.
    pub(super) fn read(&mut self, context: &Context) -> Result<Times> {
        let kernels = std::mem::take(&mut self.kernels);
        let mut times = Times::default();
        if kernels.is_empty() {
            return Ok(times);
        }
        context.guard(|device| {
            let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
            encoder.resolve_query_set(&self.queries, 0..2 * kernels.len() as u32, &self.ticks, 0);
            context.queue().submit([encoder.finish()]);
            Ok(())
        })?;
        let ticks: Vec<[u64; 2]> = context.read(&self.ticks, 0, kernels.len())?;
        let ms_per_tick = 1e-6 * f64::from(context.queue().get_timestamp_period());
        for (kernel, [begin, end]) in kernels.into_iter().zip(ticks) {
            times.add(kernel, end.saturating_sub(begin) as f64 * ms_per_tick);
        }
        Ok(times)
    }
}
