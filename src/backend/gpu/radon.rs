//! The fast Radon transform over the segment set, with its peaks. CPU twin: backend/cpu/radon.rs.
//!
//! Levels of a task alternate between two buffers. All tasks are submitted at once; only the peaks come back.

use bytemuck::{Pod, Zeroable};

use super::GpuBackend;
use super::context::Context;
use super::kernel::{Access, AppendList, Buffer, Commands, Kernel};
use crate::Result;
use crate::pipeline::search::{MIN_COVERAGE, PARTNER_SHARE, Peak, SearchRequest, best_of_cells, sort_peaks};
use crate::pipeline::segments::{Level, Node, SegmentSet, Task};

/// Nodes of one row; rows are short in small frames.
const WORKGROUP: u32 = 128;

pub(super) static RADON_FIRST: Kernel = Kernel {
    name: "radon_first",
    source: include_str!("../../../shaders/radon_first.wgsl"),
    workgroup: WORKGROUP,
    params_bytes: size_of::<FirstParams>(),
    buffers: &[Access::Read, Access::Write],
};

pub(super) static RADON_NEXT: Kernel = Kernel {
    name: "radon_next",
    source: include_str!("../../../shaders/radon_next.wgsl"),
    workgroup: WORKGROUP,
    params_bytes: size_of::<NextParams>(),
    buffers: &[Access::Read, Access::Write],
};

pub(super) static RADON_PEAKS: Kernel = Kernel {
    name: "radon_peaks",
    source: include_str!("../../../shaders/radon_peaks.wgsl"),
    workgroup: WORKGROUP,
    params_bytes: size_of::<PeaksParams>(),
    buffers: &[Access::Read, Access::Read, Access::Read, Access::Write],
};

#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub(super) struct FirstParams {
    pub(super) rows: i32,
    pub(super) columns: i32,
    pub(super) origin: i32,
    pub(super) row_stride: i32,
    pub(super) column_stride: i32,
    pub(super) height: i32,
    pub(super) start_step: i32,
    pub(super) first_shift: i32,
    pub(super) n_shifts: i32,
    pub(super) pad: i32,
    pub(super) stride: i32,
    pub(super) limit: f32,
}

#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub(super) struct NextParams {
    pub(super) start_step: i32,
    pub(super) first_shift: i32,
    pub(super) n_shifts: i32,
    pub(super) pad: i32,
    pub(super) stride: i32,
    pub(super) lower_height: i32,
    pub(super) lower_start_step: i32,
    pub(super) lower_n_starts: i32,
    pub(super) lower_first_shift: i32,
    pub(super) lower_n_shifts: i32,
    pub(super) lower_pad: i32,
    pub(super) lower_stride: i32,
}

#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub(super) struct PeaksParams {
    pub(super) level: u32,
    pub(super) height: i32,
    pub(super) n_shifts: i32,
    pub(super) stride: i32,
    pub(super) first_shift: i32,
    pub(super) first_reported: i32,
    pub(super) first_sd: i32,
    pub(super) first_paired_sd: i32,
    pub(super) start_step: i32,
    pub(super) n_paired_starts: i32,
    pub(super) weighted: u32,
    pub(super) min_coverage: f32,
    pub(super) threshold: f32,
    pub(super) partner_threshold: f32,
    pub(super) capacity: u32,
}

/// A peak as the device reports it.
#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub(super) struct Found {
    pub(super) level: u32,
    pub(super) start: u32,
    pub(super) shift: u32,
    pub(super) column: u32,
    pub(super) significance: f32,
    pub(super) paired: u32,
}

/// Two levels of one task for values and for weights, and what goes with them.
#[derive(Debug)]
pub(super) struct RadonBuffers {
    values: [Buffer; 2],
    weights: [Buffer; 2],
    inverse_sd: Buffer,
    peaks: AppendList<Found>,
}

impl RadonBuffers {
    /// Peaks there is room for at first; above the usual threshold a frame has a few hundred.
    const FIRST_CAPACITY: usize = 1 << 14;

    pub(super) fn new(context: &Context) -> Result<Self> {
        let pair = |label| Ok([Buffer::new(context, label)?, Buffer::new(context, label)?]);
        Ok(Self {
            values: pair("Radon")?,
            weights: pair("Radon weight")?,
            inverse_sd: Buffer::new(context, "Radon noise")?,
            peaks: AppendList::new(context, "peak", Self::FIRST_CAPACITY)?,
        })
    }
}

/// One level in the order in which all are worked through.
struct Step<'a> {
    task: &'a Task,
    level_ix: usize,
    /// Where its inverse standard deviations begin; those of pairs follow.
    first_sd: usize,
}

impl Step<'_> {
    fn level(&self) -> &Level {
        &self.task.levels[self.level_ix]
    }
}

impl GpuBackend {
    pub(super) fn list_peaks(&mut self, segments: &SegmentSet, request: &SearchRequest) -> Result<Vec<Peak>> {
        let context = &self.context;
        let RadonBuffers { values, weights, inverse_sd, peaks } = &mut self.radon;
        let largest = segments.tasks.iter().map(Task::max_level_len).max().unwrap_or(0);
        for buffer in values.iter_mut().chain(weights.iter_mut().filter(|_| request.weighted)) {
            buffer.reserve::<f32>(context, largest)?;
        }
        let (steps, sds) = steps_of(segments);
        inverse_sd.upload(context, &sds)?;

        let found = peaks.fill(context, |list, capacity| {
            let mut commands = Commands::new(context);
            for (id, step) in steps.iter().enumerate() {
                let (above, below) = (step.level_ix % 2, (step.level_ix + 1) % 2);
                let filtered = Source { image: &self.filtered, width: self.width, limit: request.limit };
                sum_nodes(&mut commands, step, filtered, &values[below], &values[above])?;
                if request.weighted {
                    let coverage = Source { image: &self.coverage, width: self.width, limit: 1.0 };
                    sum_nodes(&mut commands, step, coverage, &weights[below], &weights[above])?;
                }
                let shares = if request.weighted { &weights[above] } else { &values[above] };
                let params = peaks_params(step, id, request, capacity);
                let level = step.level();
                let groups =
                    [RADON_PEAKS.groups(level.stride), level.reported.len() as u32, level.reported_starts as u32];
                commands.dispatch(&RADON_PEAKS, &params, &[&values[above], shares, inverse_sd, list], groups)?;
            }
            commands.submit()
        })?;

        let on_host = |f: Found| {
            let step = &steps[f.level as usize];
            let level = step.level();
            let shift = level.shifts.start + f.shift as usize;
            let column = i64::from(f.column) - level.pad as i64;
            let (start, paired) = (f.start as usize, f.paired != 0);
            let segment = step.task.segment(&Node { level: step.level_ix, start, shift, column, paired })?;
            Some(Peak { segment, snr: f64::from(f.significance) })
        };
        let mut peaks: Vec<Peak> = found.into_iter().filter_map(on_host).collect();
        sort_peaks(&mut peaks);
        Ok(best_of_cells(&peaks))
    }
}

/// All levels of all tasks, and their inverse standard deviations one after the other.
fn steps_of(segments: &SegmentSet) -> (Vec<Step<'_>>, Vec<f32>) {
    let (mut steps, mut sds) = (Vec::new(), Vec::new());
    for task in &segments.tasks {
        for (level_ix, level) in task.levels.iter().enumerate() {
            steps.push(Step { task, level_ix, first_sd: sds.len() });
            sds.extend(level.inverse_sd.iter().chain(&level.inverse_sd_paired));
        }
    }
    (steps, sds)
}

/// What the first levels are summed from.
#[derive(Clone, Copy)]
struct Source<'a> {
    image: &'a Buffer,
    width: usize,
    pub(super) limit: f32,
}

/// Fills a level: from the image at the first, from the level below after that.
fn sum_nodes(
    commands: &mut Commands<'_>,
    step: &Step<'_>,
    source: Source<'_>,
    lower: &Buffer,
    upper: &Buffer,
) -> Result<()> {
    let level = step.level();
    let groups = [RADON_FIRST.groups(level.stride), level.n_shifts() as u32, level.n_starts as u32];
    match step.level_ix.checked_sub(1).map(|below| &step.task.levels[below]) {
        None => {
            commands.dispatch(&RADON_FIRST, &first_params(step.task, level, source), &[source.image, upper], groups)
        }
        Some(below) => commands.dispatch(&RADON_NEXT, &next_params(level, below), &[lower, upper], groups),
    }
}

/// The frame is read through strides: an octant costs no copy of it.
fn first_params(task: &Task, level: &Level, Source { width, limit, .. }: Source<'_>) -> FirstParams {
    let (row_stride, column_stride) = if task.octant.transposed { (1, width as i32) } else { (width as i32, 1) };
    let last_column = task.columns as i32 - 1;
    let (origin, column_stride) =
        if task.octant.mirrored { (last_column * column_stride, -column_stride) } else { (0, column_stride) };
    FirstParams {
        rows: task.rows as i32,
        columns: task.columns as i32,
        origin,
        row_stride,
        column_stride,
        height: level.height as i32,
        start_step: level.start_step as i32,
        first_shift: level.shifts.start as i32,
        n_shifts: level.n_shifts() as i32,
        pad: level.pad as i32,
        stride: level.stride as i32,
        limit,
    }
}

fn next_params(level: &Level, below: &Level) -> NextParams {
    NextParams {
        start_step: level.start_step as i32,
        first_shift: level.shifts.start as i32,
        n_shifts: level.n_shifts() as i32,
        pad: level.pad as i32,
        stride: level.stride as i32,
        lower_height: below.height as i32,
        lower_start_step: below.start_step as i32,
        lower_n_starts: below.n_starts as i32,
        lower_first_shift: below.shifts.start as i32,
        lower_n_shifts: below.n_shifts() as i32,
        lower_pad: below.pad as i32,
        lower_stride: below.stride as i32,
    }
}

fn peaks_params(step: &Step<'_>, id: usize, request: &SearchRequest, capacity: u32) -> PeaksParams {
    let level = step.level();
    PeaksParams {
        level: id as u32,
        height: level.height as i32,
        n_shifts: level.n_shifts() as i32,
        stride: level.stride as i32,
        first_shift: level.shifts.start as i32,
        first_reported: level.reported.start as i32 - level.shifts.start as i32,
        first_sd: step.first_sd as i32,
        first_paired_sd: (step.first_sd + level.inverse_sd.len()) as i32,
        start_step: level.start_step as i32,
        n_paired_starts: if level.is_paired() { level.n_starts as i32 - 1 } else { 0 },
        weighted: request.weighted.into(),
        min_coverage: MIN_COVERAGE,
        threshold: request.threshold,
        partner_threshold: PARTNER_SHARE * request.threshold,
        capacity,
    }
}
