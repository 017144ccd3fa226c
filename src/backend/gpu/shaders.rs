//! Checks of every shader against the Rust side, without any device.

use std::mem::offset_of;

use naga::back::pipeline_constants::process_overrides;
use naga::valid::{Capabilities, ModuleInfo, ValidationFlags, Validator};
use naga::{AddressSpace, Module, ShaderStage, StorageAccess, TypeInner};

use super::kernel::{Access, Kernel};
use super::{background, compact, filter, fit, ingest, profile, radon, trail};
use crate::pipeline::measure::{MOST_DAMPING, TELLING_DAMPING};

const KERNELS: [&Kernel; 22] = [
    &ingest::INGEST,
    &background::BACKGROUND,
    &background::NORMALISE,
    &background::LINES,
    &filter::FILTER_ROWS,
    &filter::FILTER_COLUMNS,
    &compact::COMPACT,
    &compact::HOT,
    &compact::WEIGH,
    &radon::TRANSPOSE,
    &radon::RADON_FIRST,
    &radon::RADON_NEXT,
    &radon::RADON_NEXT_WEIGHTED,
    &radon::RADON_PEAKS,
    &radon::RADON_PEAKS_WEIGHTED,
    &radon::RADON_FIRST_PACKED,
    &radon::RADON_NEXT_PACKED,
    &radon::RADON_PEAKS_PACKED,
    &profile::PROFILE,
    &trail::TRAIL,
    &fit::FIT,
    &fit::FIT_LARGE,
];

/// The least that every WebGPU device offers.
const MAX_INVOCATIONS: u32 = 256;
const MAX_WORKGROUP_BYTES: u32 = 16 * 1024;
const MAX_STORAGE_BUFFERS: usize = 8;

fn parse(kernel: &Kernel) -> (Module, ModuleInfo) {
    let module = naga::front::wgsl::parse_str(kernel.source)
        .unwrap_or_else(|e| panic!("{}: {}", kernel.name, e.emit_to_string(kernel.source)));
    // No capabilities: nothing beyond the core language.
    let info = Validator::new(ValidationFlags::all(), Capabilities::empty())
        .validate(&module)
        .unwrap_or_else(|e| panic!("{}: {}", kernel.name, e.emit_to_string(kernel.source)));
    (module, info)
}

#[test]
fn shaders_keep_to_the_least_limits() {
    for kernel in KERNELS {
        let (module, info) = parse(kernel);
        let workgroup = ("WORKGROUP", f64::from(kernel.workgroup));
        let constants = kernel.constants.iter().chain([&workgroup]).map(|(name, v)| ((*name).to_owned(), *v)).collect();
        let entry = Some((ShaderStage::Compute, "main"));
        let (module, _) = process_overrides(&module, &info, entry, &constants).unwrap();
        let size = module.entry_points[0].workgroup_size;
        assert_eq!(size, [kernel.workgroup, 1, 1], "{}", kernel.name);
        assert!(kernel.workgroup <= MAX_INVOCATIONS, "{}", kernel.name);
        let shared: u32 = module
            .global_variables
            .iter()
            .filter(|(_, v)| v.space == AddressSpace::WorkGroup)
            .map(|(_, v)| module.types[v.ty].inner.size(module.to_ctx()))
            .sum();
        assert!(shared <= MAX_WORKGROUP_BYTES, "{}: {shared} bytes of workgroup memory", kernel.name);
        assert!(kernel.buffers.len() <= MAX_STORAGE_BUFFERS, "{}", kernel.name);
    }
}

#[test]
fn bindings_are_those_the_host_fills() {
    for kernel in KERNELS {
        let (module, _) = parse(kernel);
        let mut bound: Vec<_> =
            module.global_variables.iter().filter_map(|(_, v)| v.binding.map(|b| (b.binding, b.group, v))).collect();
        bound.sort_by_key(|(binding, ..)| *binding);
        assert_eq!(bound.len(), kernel.buffers.len() + 1, "{}", kernel.name);
        for (i, (binding, group, variable)) in bound.into_iter().enumerate() {
            assert_eq!((group, binding as usize), (0, i), "{}", kernel.name);
            let access = match i.checked_sub(1).map(|i| kernel.buffers[i]) {
                None => AddressSpace::Uniform,
                Some(Access::Read) => AddressSpace::Storage { access: StorageAccess::LOAD },
                Some(Access::Write) => AddressSpace::Storage { access: StorageAccess::LOAD | StorageAccess::STORE },
            };
            assert_eq!(variable.space, access, "{}: {:?}", kernel.name, variable.name);
            if i == 0 {
                let bytes = module.types[variable.ty].inner.size(module.to_ctx()) as usize;
                assert_eq!(bytes, kernel.params_bytes, "{}", kernel.name);
            }
        }
    }
}

/// A structure on the Rust side: kernel, name in the shader, size, fields in their order with their offsets.
type Layout = (&'static Kernel, &'static str, usize, Vec<(&'static str, usize)>);

macro_rules! layout {
    ($kernel:expr, $wgsl:literal = $rust:ty { $($field:ident),* $(,)? }) => {
        (&$kernel, $wgsl, size_of::<$rust>(), vec![$((stringify!($field), offset_of!($rust, $field))),*])
    };
}

#[rustfmt::skip]
fn layouts() -> Vec<Layout> {
    vec![
        layout!(ingest::INGEST, "Params" = ingest::Params {
            width, format, has_mask, has_saturation, saturation, has_blank, blank
        }),
        layout!(background::BACKGROUND, "Params" = background::TileParams {
            width, height, nx, ny, most_px, half_of_rows, max_rounds, clip_sigmas
        }),
        layout!(background::BACKGROUND, "Statistics" = background::DeviceStatistics {
            n_usable, n_clipped, mean, median, sd
        }),
        layout!(background::NORMALISE, "Params" = background::MapParams { width, height, nx, ny, noise_floor }),
        layout!(background::LINES, "Params" = background::LineParams { width, height }),
        layout!(filter::FILTER_ROWS, "Params" = filter::Params { width, height, radius, with_saturated, clip }),
        layout!(filter::FILTER_COLUMNS, "Params" = filter::Params { width, height, radius, with_saturated, clip }),
        layout!(compact::COMPACT, "Params" = compact::Params {
            width, height, capacity, threshold, wing_level, max_walk, unused_1, unused_2, directions
        }),
        layout!(compact::COMPACT, "Source" = compact::DeviceSource {
            x, y, peak, centre, saturated, core_reach, wing_reach
        }),
        layout!(compact::HOT, "Params" = compact::HotParams { width, height, threshold, ratio }),
        layout!(compact::WEIGH, "Params" = compact::WeighParams { width, height, first }),
        layout!(compact::WEIGH, "Footprint" = compact::DeviceFootprint { x, y, radius }),
        layout!(radon::TRANSPOSE, "Params" = radon::TransposeParams { width, height }),
        layout!(radon::RADON_FIRST, "Params" = radon::FirstParams {
            rows, columns, mirrored, height, start_step, first_shift, n_shifts, pad, stride, limit, per_step
        }),
        layout!(radon::RADON_NEXT, "Level" = radon::DeviceLevel {
            id, height, start_step, first_shift, n_shifts, pad, first_reported, end_reported, reported_starts,
            n_paired_starts, first_sd, first_paired_sd
        }),
        layout!(radon::RADON_NEXT, "Params" = radon::NextParams {
            levels, n_starts, first_shift, n_shifts, pad, stride, columns, keep, upper_stride, min_coverage,
            threshold, partner_threshold, most_places, most_peaks, turn
        }),
        layout!(radon::RADON_NEXT, "Place" = radon::Place { start, shift, column, bits }),
        layout!(radon::RADON_PEAKS, "Found" = radon::Found { level, start, shift, column, significance, paired }),
        layout!(profile::PROFILE, "Params" = profile::Params { width, height, n_parts, row_of_groups, sigma }),
        layout!(profile::PROFILE, "Track" = profile::DeviceTrack {
            along_x, half_width, along, slope, slope_rest
        }),
        layout!(profile::PROFILE, "Part" = profile::DevicePart {
            track, n_bins, first, pixel, beyond, beyond_rest
        }),
        layout!(trail::TRAIL, "Params" = trail::Params { width, height, trail, factor }),
        layout!(trail::TRAIL, "Walk" = trail::DeviceWalk {
            along_x, first, steps, half_width, first_centre, origin_x, origin_y
        }),
        layout!(trail::TRAIL, "Model" = trail::DeviceModel { x1, y1, c, s, length, sigma, density }),
        layout!(trail::TRAIL, "Trail" = trail::DeviceTrail { walk, model }),
        layout!(fit::FIT, "Params" = fit::Params {
            width, height, first, max_iterations, free, is_point, reach, photon_variance, least_sigma, most_sigma,
            stop_delta_chi2, most_stop_damping, clip_sigmas, beyond_border,
            expected_sigma, sigma_weight
        }),
        layout!(fit::FIT, "Request" = fit::DeviceRequest { walk, start, x2, y2, background, subtracted }),
        layout!(fit::FIT, "State" = fit::DeviceState { x1, y1, x2, y2, flux, background, sigma }),
        layout!(fit::FIT, "Fit" = fit::DeviceFit {
            state, chi2, power, n_pixels, iterations, converged, end_coverage, information
        }),
    ]
}

#[test]
fn structures_are_laid_out_alike() {
    for (kernel, name, bytes, fields) in layouts() {
        let (module, _) = parse(kernel);
        let found = module.types.iter().find(|(_, t)| t.name.as_deref() == Some(name));
        let Some(TypeInner::Struct { members, span }) = found.map(|(_, t)| &t.inner) else {
            panic!("{} has no structure {name}", kernel.name);
        };
        assert_eq!(*span as usize, bytes, "{}: {name}", kernel.name);
        let in_shader: Vec<_> = members.iter().map(|m| (m.name.as_deref().unwrap_or(""), m.offset as usize)).collect();
        assert_eq!(in_shader, fields, "{}: {name}", kernel.name);
    }
}

#[test]
fn constants_are_the_same_on_both_sides() {
    let constants = [
        (&radon::RADON_NEXT, format!("const COLUMNS = {};", radon::COLUMNS_AT_ONCE)),
        (&radon::TRANSPOSE, format!("const SIDE = {}u;", radon::SQUARE)),
        (&filter::FILTER_ROWS, format!("const MOST_RADIUS = {}u;", filter::MOST_RADIUS)),
        (&filter::FILTER_COLUMNS, format!("const ROWS = {}u;", filter::ROWS_AT_ONCE)),
        (&fit::FIT, format!("const TELLING_DAMPING = {TELLING_DAMPING:?};")),
        (&fit::FIT, format!("const MOST_DAMPING = {MOST_DAMPING:?};")),
        (&profile::PROFILE, format!("const FIXED = {};", profile::FIXED)),
    ];
    for (kernel, text) in constants {
        assert!(kernel.source.contains(&text), "{}: {text}", kernel.name);
    }
    // The header of the list of places, of which the list itself has no length.
    let (module, _) = parse(&radon::RADON_NEXT);
    let places = module.types.iter().find(|(_, t)| t.name.as_deref() == Some("Places"));
    let Some(TypeInner::Struct { members, .. }) = places.map(|(_, t)| &t.inner) else { panic!("no structure Places") };
    let list = members.iter().find(|m| m.name.as_deref() == Some("list")).unwrap();
    assert_eq!(list.offset as usize, size_of::<radon::PlacesHeader>());
}

#[test]
fn every_shader_has_an_owner_and_names_its_twin() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/shaders");
    for file in std::fs::read_dir(folder).unwrap().map(|f| f.unwrap().path()) {
        if file.extension().is_none_or(|e| e != "wgsl") {
            continue;
        }
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(KERNELS.iter().any(|k| k.source.ends_with(&text)), "{} belongs to no kernel", file.display());
        assert!(text.contains("docs/algorithm.md") && text.contains("CPU twin"), "{}", file.display());
    }
}
