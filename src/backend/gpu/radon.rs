//! The fast Radon transform over the segment set, with its peaks. CPU twin: backend/cpu/radon/.
//!
//! Two levels are made in one pass, in registers, from the last one that was kept; their peaks are found on the way.
//! All passes are submitted at once; only the peaks come back.

use bytemuck::{Pod, Zeroable};
use rayon::prelude::*;

use super::GpuBackend;
use super::commands::Commands;
use super::context::Context;
use super::kernel::{Access, AppendList, Buffer, Kernel, with_room_to_spare};
use crate::Result;
use crate::pipeline::search::{MIN_COVERAGE, PARTNER_SHARE, Peak, SearchRequest, best_of_cells};
use crate::pipeline::segments::{Level, Node, SegmentSet, Task};

/// Nodes of one row; rows are short in small frames.
const WORKGROUP: u32 = 128;

pub(super) static TRANSPOSE: Kernel = Kernel {
    name: "transpose",
    source: include_str!("../../../shaders/transpose.wgsl"),
    workgroup: 256,
    params_bytes: size_of::<TransposeParams>(),
    buffers: &[Access::Read, Access::Write],
    constants: &[],
};

/// Side of the squares in which an image is turned over.
pub(super) const SQUARE: usize = 32;

pub(super) static RADON_FIRST: Kernel = Kernel {
    name: "radon_first",
    source: include_str!("../../../shaders/radon_first.wgsl"),
    workgroup: WORKGROUP,
    params_bytes: size_of::<FirstParams>(),
    buffers: &[Access::Read, Access::Write],
    constants: &[("PACKED", 0.0)],
};

pub(super) static RADON_NEXT: Kernel = Kernel {
    name: "radon_next",
    source: concat!(
        include_str!("../../../shaders/shared/radon.wgsl"),
        include_str!("../../../shaders/shared/radon_next.wgsl"),
        include_str!("../../../shaders/radon_next.wgsl")
    ),
    workgroup: WORKGROUP,
    params_bytes: size_of::<NextParams>(),
    buffers: &[Access::Read, Access::Read, Access::Read, Access::Write, Access::Write, Access::Write],
    constants: PLAIN,
};

pub(super) static RADON_PEAKS: Kernel = Kernel {
    name: "radon_peaks",
    source: concat!(
        include_str!("../../../shaders/shared/radon.wgsl"),
        include_str!("../../../shaders/radon_peaks.wgsl")
    ),
    workgroup: WORKGROUP,
    params_bytes: size_of::<NextParams>(),
    buffers: &[Access::Read, Access::Read, Access::Read, Access::Write, Access::Write],
    constants: PLAIN,
};

pub(super) static RADON_NEXT_WEIGHTED: Kernel =
    Kernel { name: "radon_next_weighted", constants: WEIGHTED, ..RADON_NEXT };

pub(super) static RADON_PEAKS_WEIGHTED: Kernel =
    Kernel { name: "radon_peaks_weighted", constants: WEIGHTED, ..RADON_PEAKS };

pub(super) static RADON_FIRST_PACKED: Kernel =
    Kernel { name: "radon_first_packed", constants: &[("PACKED", 1.0)], ..RADON_FIRST };

pub(super) static RADON_NEXT_PACKED: Kernel = Kernel {
    name: "radon_next_packed",
    source: concat!(
        include_str!("../../../shaders/shared/radon.wgsl"),
        include_str!("../../../shaders/shared/radon_next.wgsl"),
        include_str!("../../../shaders/radon_next_packed.wgsl")
    ),
    buffers: &[Access::Read, Access::Read, Access::Read, Access::Write, Access::Write],
    constants: PACKED,
    ..RADON_NEXT
};

pub(super) static RADON_PEAKS_PACKED: Kernel = Kernel { name: "radon_peaks_packed", constants: PACKED, ..RADON_PEAKS };

/// What nodes are: sums, sums with their weights, or whole numbers, two in a word.
const PLAIN: &[(&str, f64)] = &[("WEIGHTED", 0.0), ("PACKED", 0.0)];
const WEIGHTED: &[(&str, f64)] = &[("WEIGHTED", 1.0), ("PACKED", 0.0)];
const PACKED: &[(&str, f64)] = &[("WEIGHTED", 0.0), ("PACKED", 1.0)];

/// Columns of one invocation: the shader's `COLUMNS`.
pub(super) const COLUMNS_AT_ONCE: usize = 4;

/// Workgroups that look at the places of a pass, one after the other where there are more.
const LOOKERS: u32 = 256;

#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub(super) struct TransposeParams {
    pub(super) width: u32,
    pub(super) height: u32,
}

#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub(super) struct FirstParams {
    pub(super) rows: i32,
    pub(super) columns: i32,
    pub(super) mirrored: u32,
    pub(super) height: i32,
    pub(super) start_step: i32,
    pub(super) first_shift: i32,
    pub(super) n_shifts: i32,
    pub(super) pad: i32,
    pub(super) stride: i32,
    pub(super) limit: f32,
    pub(super) per_step: f32,
}

/// A level whose peaks are looked for.
#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub(super) struct DeviceLevel {
    pub(super) id: u32,
    pub(super) height: i32,
    pub(super) start_step: i32,
    pub(super) first_shift: i32,
    pub(super) n_shifts: i32,
    pub(super) pad: i32,
    pub(super) first_reported: i32,
    pub(super) end_reported: i32,
    pub(super) reported_starts: i32,
    pub(super) n_paired_starts: i32,
    pub(super) first_sd: i32,
    pub(super) first_paired_sd: i32,
}

#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub(super) struct NextParams {
    pub(super) levels: [DeviceLevel; 2],
    pub(super) n_starts: i32,
    pub(super) first_shift: i32,
    pub(super) n_shifts: i32,
    pub(super) pad: i32,
    pub(super) stride: i32,
    pub(super) columns: i32,
    pub(super) keep: u32,
    pub(super) upper_stride: i32,
    pub(super) min_coverage: f32,
    pub(super) threshold: f32,
    pub(super) partner_threshold: f32,
    pub(super) most_places: u32,
    pub(super) most_peaks: u32,
    pub(super) turn: u32,
}

/// Where nodes are that may be peaks, see the shader.
#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub(super) struct Place {
    pub(super) start: i32,
    pub(super) shift: i32,
    pub(super) column: i32,
    pub(super) bits: u32,
}

/// A peak as the device reports it.
#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub(super) struct Found {
    pub(super) level: u32,
    pub(super) start: u32,
    pub(super) shift: u32,
    pub(super) column: i32,
    pub(super) significance: f32,
    pub(super) paired: u32,
}

/// Two kept levels of one task for values and for weights, and what goes with them.
#[derive(Debug)]
pub(super) struct RadonBuffers {
    values: [Buffer; 2],
    weights: [Buffer; 2],
    inverse_sd: Buffer,
    places: Buffer,
    pub(super) most_places: usize,
    peaks: AppendList<Found>,
}

impl RadonBuffers {
    /// Peaks there is room for at first; above the usual threshold a frame has a few hundred.
    const FIRST_CAPACITY: usize = 1 << 14;

    /// Room for places at first; three or four of 10 000 nodes of noise are noted.
    const FIRST_PLACES: usize = 1 << 16;

    pub(super) fn new(context: &Context) -> Result<Self> {
        let pair = |label| Ok([Buffer::new(context, label)?, Buffer::new(context, label)?]);
        Ok(Self {
            values: pair("Radon")?,
            weights: pair("Radon weight")?,
            inverse_sd: Buffer::new(context, "Radon noise")?,
            places: Buffer::new(context, "place")?,
            most_places: Self::FIRST_PLACES,
            peaks: AppendList::new(context, "peak", Self::FIRST_CAPACITY)?,
        })
    }
}

/// A level that peaks are reported of, and where the device finds its inverse standard deviations.
struct Reported<'a> {
    task: &'a Task,
    level_ix: usize,
    id: usize,
    first_sd: usize,
}

impl Reported<'_> {
    fn level(&self) -> &Level {
        &self.task.levels[self.level_ix]
    }

    fn on_device(&self) -> DeviceLevel {
        let level = self.level();
        DeviceLevel {
            id: self.id as u32,
            height: level.height as i32,
            start_step: level.start_step as i32,
            first_shift: level.shifts.start as i32,
            n_shifts: level.n_shifts() as i32,
            pad: level.pad as i32,
            first_reported: level.reported.start as i32,
            end_reported: level.reported.end as i32,
            reported_starts: level.reported_starts as i32,
            n_paired_starts: if level.is_paired() { level.n_starts as i32 - 1 } else { 0 },
            first_sd: self.first_sd as i32,
            first_paired_sd: (self.first_sd + level.inverse_sd.len()) as i32,
        }
    }
}

/// The shaders' header of the list of places: two counters, and the most there were.
pub(super) type PlacesHeader = [u32; 4];

impl GpuBackend {
    pub(super) fn list_peaks(&mut self, segments: &SegmentSet, request: &SearchRequest) -> Result<Vec<Peak>> {
        let context = &self.context;
        let largest = segments.tasks.iter().map(Task::max_kept_len).max().unwrap_or(0);
        let RadonBuffers { values, weights, inverse_sd, .. } = &mut self.radon;
        let of_node = if is_packed(request) { size_of::<i16>() } else { size_of::<f32>() };
        for buffer in values.iter_mut().chain(weights.iter_mut().filter(|_| request.weighted)) {
            buffer.reserve::<u8>(context, of_node * largest)?;
        }
        let (reported, sds) = reported_levels(segments, request.unit());
        inverse_sd.upload(context, &sds)?;
        let found = loop {
            let most_places = self.radon.most_places;
            let bytes = size_of::<PlacesHeader>() + most_places * size_of::<Place>();
            self.radon.places.reserve::<u8>(&self.context, bytes)?;
            let found = self.transform(segments, &reported, request)?;
            let header: Vec<PlacesHeader> = self.radon.places.read(&self.context, 1)?;
            let noted = header.first().map_or(0, |h| h[2] as usize);
            if noted <= most_places {
                break found;
            }
            self.radon.most_places = with_room_to_spare::<Place>(&self.context, noted, size_of::<PlacesHeader>());
        };
        let on_host = |f: Found| {
            let Reported { task, level_ix, .. } = reported[f.level as usize];
            let (start, shift, paired) = (f.start as usize, f.shift as usize, f.paired != 0);
            let segment = task.segment(&Node { level: level_ix, start, shift, column: f.column.into(), paired })?;
            Some(Peak { segment, snr: f64::from(f.significance) })
        };
        let peaks: Vec<Peak> = found.into_par_iter().filter_map(on_host).collect();
        Ok(best_of_cells(&peaks))
    }

    /// All peaks, in no order; some are missing where there were too many places.
    fn transform(
        &mut self,
        segments: &SegmentSet,
        reported: &[Reported<'_>],
        request: &SearchRequest,
    ) -> Result<Vec<Found>> {
        let (context, recorder) = (&self.context, &mut self.recorder);
        let RadonBuffers { values, weights, inverse_sd, places, most_places, peaks } = &mut self.radon;
        // The image and its coverage, as they are and turned over, each with its limit and step.
        let scales = [(request.limit, request.step), (1.0, None)];
        let upright = [&self.filtered, &self.coverage];
        let turned = [&self.scratch[0], &self.scratch[1]];
        let kinds = if request.weighted { 2 } else { 1 };
        let (first_kernel, next_kernel, peaks_kernel) = if request.weighted {
            (&RADON_FIRST, &RADON_NEXT_WEIGHTED, &RADON_PEAKS_WEIGHTED)
        } else if is_packed(request) {
            (&RADON_FIRST_PACKED, &RADON_NEXT_PACKED, &RADON_PEAKS_PACKED)
        } else {
            (&RADON_FIRST, &RADON_NEXT, &RADON_PEAKS)
        };
        let (width, height) = (self.width, self.height);
        peaks.fill(context, |list, capacity| {
            places.upload(context, &[PlacesHeader::default()])?;
            let mut commands = Commands::new(context, recorder);
            let squares = [width.div_ceil(SQUARE) as u32, height.div_ceil(SQUARE) as u32, 1];
            let shape = TransposeParams { width: width as u32, height: height as u32 };
            for (image, turned) in upright.iter().zip(&turned).take(kinds) {
                commands.dispatch(&TRANSPOSE, &shape, &[image, turned], squares)?;
            }
            let mut turn = 0;
            for task in &segments.tasks {
                let first = task.first_kept();
                let level = &task.levels[first];
                let n_starts = task.rows.div_ceil(level.kept_step());
                let groups = [first_kernel.groups(level.stride / 2), level.n_shifts() as u32, n_starts as u32];
                let images = if task.octant.transposed { turned } else { upright };
                let of_kinds = images.into_iter().zip([&values[0], &weights[0]]).zip(scales).take(kinds);
                for ((image, nodes), scale) in of_kinds {
                    commands.dispatch(first_kernel, &first_params(task, level, scale), &[image, nodes], groups)?;
                }
                let above: Vec<&Reported<'_>> =
                    reported.iter().filter(|r| std::ptr::eq(r.task, task) && r.level_ix > first).collect();
                for (pass, made) in above.chunks(2).enumerate() {
                    let (below, above) = (pass % 2, (pass + 1) % 2);
                    let lower = &task.levels[made[0].level_ix - 1];
                    let mut params = next_params(task, lower, made, request);
                    (params.most_places, params.most_peaks, params.turn) = (*most_places as u32, capacity, turn);
                    let shares = if request.weighted { &weights[below] } else { &values[below] };
                    let groups = [
                        next_kernel.groups((task.columns + 4 * lower.shifts.end).div_ceil(COLUMNS_AT_ONCE)),
                        lower.n_shifts() as u32,
                        params.n_starts as u32,
                    ];
                    let buffers = [&values[below], shares, &*inverse_sd, &*places, &values[above], &weights[above]];
                    commands.dispatch(next_kernel, &params, &buffers[..next_kernel.buffers.len()], groups)?;
                    let buffers = [&values[below], shares, &*inverse_sd, &*places, list];
                    commands.dispatch(peaks_kernel, &params, &buffers, [LOOKERS, 1, 1])?;
                    turn = 1 - turn;
                }
            }
            commands.submit()
        })
    }
}

/// Whole numbers that 16 bits hold are summed two at once; with weights they are not worth it.
fn is_packed(request: &SearchRequest) -> bool {
    request.step.is_some() && !request.weighted
}

/// All levels of all tasks, and one after the other the significances of their nodes' one, which is so large a value.
fn reported_levels(segments: &SegmentSet, unit: f32) -> (Vec<Reported<'_>>, Vec<f32>) {
    let (mut reported, mut sds) = (Vec::new(), Vec::new());
    for task in &segments.tasks {
        for (level_ix, level) in task.levels.iter().enumerate() {
            reported.push(Reported { task, level_ix, id: reported.len(), first_sd: sds.len() });
            sds.extend(level.inverse_sd.iter().chain(&level.inverse_sd_paired).map(|sd| sd * unit));
        }
    }
    (reported, sds)
}

fn first_params(task: &Task, level: &Level, (limit, step): (f32, Option<f32>)) -> FirstParams {
    FirstParams {
        rows: task.rows as i32,
        columns: task.columns as i32,
        mirrored: task.octant.mirrored.into(),
        height: level.height as i32,
        start_step: level.kept_step() as i32,
        first_shift: level.shifts.start as i32,
        n_shifts: level.n_shifts() as i32,
        pad: level.pad as i32,
        stride: level.stride as i32,
        limit,
        per_step: step.map_or(0.0, |step| 1.0 / step),
    }
}

/// Of the pass that makes one level, or two, from the kept one below; what depends on the lists is left open.
fn next_params(task: &Task, lower: &Level, made: &[&Reported<'_>], request: &SearchRequest) -> NextParams {
    let on_device = |k: usize| made.get(k).map_or_else(DeviceLevel::zeroed, |r| r.on_device());
    let upper = made.get(1).map(|r| r.level());
    let is_last = made.last().is_some_and(|r| r.level_ix + 1 == task.levels.len());
    NextParams {
        levels: [on_device(0), on_device(1)],
        n_starts: task.rows.div_ceil(lower.kept_step()) as i32,
        first_shift: lower.shifts.start as i32,
        n_shifts: lower.n_shifts() as i32,
        pad: lower.pad as i32,
        stride: lower.stride as i32,
        columns: task.columns as i32,
        keep: (!is_last).into(),
        upper_stride: upper.map_or(0, |l| l.stride as i32),
        min_coverage: MIN_COVERAGE,
        threshold: request.threshold,
        partner_threshold: PARTNER_SHARE * request.threshold,
        most_places: 0,
        most_peaks: 0,
        turn: 0,
    }
}
