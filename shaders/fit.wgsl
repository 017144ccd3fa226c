// One workgroup: one fit of the trailed PSF by damped least squares, from its start to its end.
// In: residuals, weights, requests, the centres of their walks. Out: one Fit per request.
// docs/algorithm.md, "Measure". CPU twin: backend/cpu/fit.rs. Needs shared/trail.wgsl.
//
// Every pass over the pixels leaves its sums in workgroup memory; one invocation solves for the step. Coordinates are
// relative to the pixel at the starting segment's middle, so that single precision suffices anywhere in the frame.

override WORKGROUP: u32;
/// Vectors that are added up at once: as many as fit into workgroup memory.
override AT_ONCE: u32;

const N = 7u;
const N_TRIANGLE = 28u;
/// The sums of a pass: the products of (gradient, residual) with itself, an 8×8 matrix kept as its upper three 4×4
/// blocks (`place` finds an element), then these.
const REST = 7u;
const CHI2 = 47u;
const CURVATURE = 48u;
const POWER = 50u;
const N_VECTORS = 13u;
const N_SUMS = 52u;

/// Least part of an end's Gauss–Newton term that its residual curvature may leave.
const MIN_CURVATURE = -0.7;
/// Rest of a diagonal element that still counts as positive: what rounding leaves of a singular one is smaller.
const MIN_PIVOT = 1e-6;
/// χ² is a sum of thousands of rounded terms: a rise by less than this part of it is no rise.
const CHI2_TOLERANCE = 2e-6;
/// An end this near to the outermost place lies on it.
const ON_BORDER = 1e-3;
/// After a step that made chi2 worse, damping is no less than this.
const TELLING_DAMPING = 0.01;
/// Where even a step damped by this makes chi2 worse there is no way down.
const MOST_DAMPING = 10000.0;

struct Params {
    width: u32,
    height: u32,
    first: u32,
    max_iterations: u32,
    /// One bit for each of the seven parameters.
    free: u32,
    is_point: u32,
    reach: f32,
    photon_variance: f32,
    least_sigma: f32,
    most_sigma: f32,
    stop_delta_chi2: f32,
    most_stop_damping: f32,
    clip_sigmas: f32,
    /// How far outside of the frame an end may lie, in PSF widths.
    beyond_border: f32,
    /// PSF width known beforehand, and the inverse of its variance; 0 where it is not.
    expected_sigma: f32,
    sigma_weight: f32,
}

struct Request {
    walk: Walk,
    start: Model,
    /// The other end.
    x2: f32,
    y2: f32,
    background: f32,
    /// The start model has been taken out of the residual image.
    subtracted: u32,
}

/// The trail as it moves.
struct State {
    x1: f32,
    y1: f32,
    x2: f32,
    y2: f32,
    flux: f32,
    background: f32,
    sigma: f32,
}

struct Fit {
    state: State,
    chi2: f32,
    power: f32,
    n_pixels: f32,
    iterations: u32,
    converged: u32,
    end_coverage: array<f32, 2>,
    information: array<f32, N_TRIANGLE>,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> residual: array<f32>;
@group(0) @binding(2) var<storage, read> weights: array<f32>;
@group(0) @binding(3) var<storage, read> requests: array<Request>;
@group(0) @binding(4) var<storage, read> centres: array<i32>;
@group(0) @binding(5) var<storage, read_write> fits: array<Fit>;

/// A pixel of the stamp.
struct Pixel {
    x: f32,
    y: f32,
    /// Residual, with the start model added back where it had been taken out.
    data: f32,
    /// Inverse variance with the source's own photons.
    weight: f32,
    /// Inverse variance of the background alone.
    sky_weight: f32,
    inside: bool,
}

struct Proposal {
    /// 1 where the matrix could be solved.
    solved: u32,
    /// Improvement of χ² that the step promises.
    gain: f32,
}

var<workgroup> parts: array<vec4<f32>, AT_ONCE * WORKGROUP>;
var<workgroup> partial: array<f32, WORKGROUP>;
var<workgroup> sums: array<f32, N_SUMS>;
var<workgroup> trial_sums: array<f32, N_SUMS>;
var<workgroup> totals: array<f32, 5>;
var<workgroup> current: State;
var<workgroup> trial: State;
var<workgroup> proposal: Proposal;

/// Where element (i, j) of the matrix of products stands in the sums, i ≤ j.
fn place(i: u32, j: u32) -> u32 {
    return 16u * (i / 4u + j / 4u) + 4u * (i % 4u) + j % 4u;
}

fn has(parameters: u32, i: u32) -> bool {
    return (parameters >> i & 1u) != 0u;
}

fn model_of(state: State) -> Model {
    let d = vec2(state.x2 - state.x1, state.y2 - state.y1);
    let span = length(d);
    if span < POINT_LENGTH {
        return Model(state.x1, state.y1, 1.0, 0.0, 0.0, state.sigma, state.flux);
    }
    return Model(state.x1, state.y1, d.x / span, d.y / span, span, state.sigma, state.flux / span);
}

/// Pixel `k` of the stamp, counted along the walk.
fn pixel_at(request: u32, k: u32) -> Pixel {
    let walk = requests[request].walk;
    let start = requests[request].start;
    let across = u32(2 * walk.half_width + 1);
    let step = k / across;
    let offset = i32(k % across) - walk.half_width;
    let pixel = walked_pixel(walk, step, centres[walk.first_centre + step], offset);
    let x = f32(pixel.x - walk.origin_x);
    let y = f32(pixel.y - walk.origin_y);
    let p = along_across(start, x, y);
    let near = abs(p.y) <= params.reach && p.x >= -params.reach && p.x <= start.length + params.reach;
    var result = Pixel(x, y, 0.0, 0.0, 0.0, near && is_inside(pixel, params.width, params.height));
    if result.inside {
        let i = u32(pixel.y) * params.width + u32(pixel.x);
        result.sky_weight = max(weights[i], 0.0);
        // Of no account where the weight is zero.
        let most = params.clip_sigmas / max(sqrt(result.sky_weight), 1e-20);
        result.data = clamp(residual[i], -most, most);
        result.weight = result.sky_weight;
        let subtracted = requests[request].subtracted != 0u;
        if subtracted || params.photon_variance > 0.0 {
            let light = light_at(start, x, y);
            result.data += select(0.0, light, subtracted);
            result.weight /= 1.0 + result.sky_weight * params.photon_variance * max(light, 0.0);
        }
    }
    return result;
}

fn n_stamp(request: u32) -> u32 {
    let walk = requests[request].walk;
    return walk.steps * u32(2 * walk.half_width + 1);
}

/// The flux that fits best with everything else as it is.
fn best_flux(lid: u32, request: u32) {
    var unit = requests[request].start;
    unit.density = select(1.0 / max(unit.length, POINT_LENGTH), 1.0, unit.length < POINT_LENGTH);
    let background = requests[request].background;
    var signal = 0.0;
    var power = 0.0;
    for (var k = lid; k < n_stamp(request); k += WORKGROUP) {
        let p = pixel_at(request, k);
        if p.weight > 0.0 {
            let t = light_at(unit, p.x, p.y);
            signal += p.weight * t * (p.data - background);
            power += p.weight * t * t;
        }
    }
    var own = array<vec4<f32>, N_VECTORS>();
    own[0] = vec4(signal, power, 0.0, 0.0);
    reduce(lid, &own, 1u);
}

/// Adds up the first `n` vectors of all invocations, in an order that is the same in every run, into `trial_sums`.
fn reduce(lid: u32, own: ptr<function, array<vec4<f32>, N_VECTORS>>, n: u32) {
    for (var first = 0u; first < n; first += AT_ONCE) {
        let at_once = min(AT_ONCE, n - first);
        for (var k = 0u; k < at_once; k++) {
            parts[k * WORKGROUP + lid] = (*own)[first + k];
        }
        workgroupBarrier();
        // Each sum is made by several invocations, and their shares are put together.
        let n_sums = 4u * at_once;
        let sharers = WORKGROUP / n_sums;
        if lid < sharers * n_sums {
            let k = lid % n_sums;
            var total = 0.0;
            for (var part = lid / n_sums; part < WORKGROUP; part += sharers) {
                total += parts[k / 4u * WORKGROUP + part][k % 4u];
            }
            partial[lid] = total;
        }
        workgroupBarrier();
        if lid < n_sums {
            var total = 0.0;
            for (var sharer = 0u; sharer < sharers; sharer++) {
                total += partial[sharer * n_sums + lid];
            }
            trial_sums[4u * first + lid] = total;
        }
    }
    workgroupBarrier();
}

/// The products of all elements of a with all of b, a row for each of a.
fn outer(a: vec4<f32>, b: vec4<f32>) -> mat4x4<f32> {
    return mat4x4(a.x * b, a.y * b, a.z * b, a.w * b);
}

/// Fills `trial_sums` for a state of the trail.
///
/// No loop inside of the one over pixels: software Vulkan (Mesa 22.3) ends an invocation after some 65 000 turns of all
/// its loops together, in silence, and a fit goes over its pixels many times.
fn accumulate(lid: u32, request: u32, state: State) {
    let model = model_of(state);
    var first = mat4x4<f32>();
    var mixed = mat4x4<f32>();
    var second = mat4x4<f32>();
    var others = vec4<f32>();
    for (var k = lid; k < n_stamp(request); k += WORKGROUP) {
        let p = pixel_at(request, k);
        if p.weight > 0.0 {
            let sample = sample_at(model, p.x, p.y);
            let rest = p.data - (sample.light + state.background);
            let g = sample.gradient;
            let a = vec4(g[0], g[1], g[2], g[3]);
            let b = vec4(g[4], g[5], g[6], rest);
            first += outer(p.weight * a, a);
            mixed += outer(p.weight * a, b);
            second += outer(p.weight * b, b);
            let power = p.sky_weight * sample.light * sample.light;
            others += vec4(p.weight * rest * sample.curvature, power, 0.0);
        }
    }
    var own = array(
        first[0], first[1], first[2], first[3],
        mixed[0], mixed[1], mixed[2], mixed[3],
        second[0], second[1], second[2], second[3],
        others,
    );
    reduce(lid, &own, N_VECTORS);
    if lid == 0u {
        // What is known of the width beforehand counts like a pixel.
        let off = params.expected_sigma - state.sigma;
        trial_sums[place(6u, 6u)] += params.sigma_weight;
        trial_sums[place(6u, REST)] += params.sigma_weight * off;
        trial_sums[CHI2] += params.sigma_weight * off * off;
    }
    workgroupBarrier();
}

/// True where a move along one axis leaves the frame.
fn leaves(place: f32, first: f32, last: f32, move_by: f32) -> bool {
    return (place < first + ON_BORDER && move_by < 0.0) || (place > last - ON_BORDER && move_by > 0.0);
}

/// The free parameters without those that cannot move: an end at its outermost place that is drawn further
/// stays there, and so does a width at its limit.
fn movable(request: u32, state: State) -> u32 {
    let pull = sums[place(6u, REST)];
    let at_limit = (state.sigma <= params.least_sigma && pull < 0.0) || (state.sigma >= params.most_sigma && pull > 0.0);
    let free = params.free & ~(u32(at_limit) << 6u);
    if params.is_point != 0u {
        return free;
    }
    let model = model_of(state);
    let frame = bounds_of(request);
    let pull_1 = sums[place(1u, REST)];
    let pull_2 = sums[place(3u, REST)];
    let held_1 = leaves(state.x1, frame.x, frame.z, pull_1 * model.c)
        || leaves(state.y1, frame.y, frame.w, pull_1 * model.s);
    let held_2 = leaves(state.x2, frame.x, frame.z, pull_2 * model.c)
        || leaves(state.y2, frame.y, frame.w, pull_2 * model.s);
    return free & ~(u32(held_1) << 1u | u32(held_2) << 3u);
}

/// The damped step from `sums` for some of the parameters, by Cholesky factors; `solved` is 0 where the matrix is
/// singular.
fn solve(free: u32, damping: f32, step: ptr<function, array<f32, N>>) -> Proposal {
    var lower: array<array<f32, N>, N>;
    var right: array<f32, N>;
    for (var i = 0u; i < N; i++) {
        right[i] = select(0.0, sums[place(i, REST)], has(free, i));
        for (var j = 0u; j <= i; j++) {
            var value = select(0.0, sums[place(j, i)], has(free, i) && has(free, j));
            if i == j {
                if i == 1u || i == 3u {
                    value += max(sums[CURVATURE + i / 2u], MIN_CURVATURE * value);
                }
                value = select(1.0, value * (1.0 + damping), has(free, i));
            }
            var rest = value;
            for (var k = 0u; k < j; k++) {
                rest -= lower[i][k] * lower[j][k];
            }
            if i == j {
                if !(rest > MIN_PIVOT * value) {
                    return Proposal(0u, 0.0);
                }
                lower[i][i] = sqrt(rest);
            } else {
                lower[i][j] = rest / lower[j][j];
            }
        }
    }
    var x = right;
    for (var i = 0u; i < N; i++) {
        for (var k = 0u; k < i; k++) {
            x[i] -= lower[i][k] * x[k];
        }
        x[i] /= lower[i][i];
    }
    for (var back = 0u; back < N; back++) {
        let i = N - 1u - back;
        for (var k = i + 1u; k < N; k++) {
            x[i] -= lower[k][i] * x[k];
        }
        x[i] /= lower[i][i];
    }
    var gain = 0.0;
    for (var i = 0u; i < N; i++) {
        gain += x[i] * right[i];
    }
    *step = x;
    return Proposal(1u, gain);
}

/// Where the ends may lie, in the request's coordinates: (left, top, right, bottom).
fn bounds_of(request: u32) -> vec4<f32> {
    let walk = requests[request].walk;
    let margin = select(params.beyond_border * requests[request].start.sigma, 0.0, params.is_point != 0u);
    let low = vec2(f32(-walk.origin_x), f32(-walk.origin_y)) - 0.5;
    return vec4(low - margin, low + vec2(f32(params.width), f32(params.height)) + margin);
}

/// Fractions at which the segment enters and leaves the frame (Liang–Barsky); it misses it where the first is larger.
fn clip_to_frame(frame: vec4<f32>, p: vec2<f32>, d: vec2<f32>) -> vec2<f32> {
    let steps = array(-d.x, d.x, -d.y, d.y);
    let rooms = array(p.x - frame.x, frame.z - p.x, p.y - frame.y, frame.w - p.y);
    var cut = vec2(0.0, 1.0);
    for (var side = 0u; side < 4u; side++) {
        let step = steps[side];
        let room = rooms[side];
        if step == 0.0 {
            cut = select(cut, vec2(1.0, 0.0), room < 0.0);
        } else if step < 0.0 {
            cut.x = max(cut.x, room / step);
        } else {
            cut.y = min(cut.y, room / step);
        }
    }
    return cut;
}

/// The state after a step, kept within its bounds.
fn apply(request: u32, state: State, step: array<f32, N>) -> State {
    let start = requests[request].start;
    let most_along = 2.0 * start.sigma + 0.3 * start.length;
    let most_across = 1.5 * start.sigma;
    let frame = bounds_of(request);
    let model = model_of(state);
    let along = vec2(model.c, model.s);
    let across = vec2(-model.s, model.c);
    var p = vec2(state.x1, state.y1);
    var q = vec2(state.x2, state.y2);
    var seen = 1.0;
    let moved_p = p + clamp(step[1], -most_along, most_along) * along
        + clamp(step[2], -most_across, most_across) * across;
    if params.is_point != 0u {
        p = clamp(moved_p, frame.xy, frame.zw);
        q = p;
    } else {
        let moved_q = q + clamp(step[3], -most_along, most_along) * along
            + clamp(step[4], -most_across, most_across) * across;
        let d = moved_q - moved_p;
        let cut = clip_to_frame(frame, moved_p, d);
        if cut.x <= cut.y && (cut.y - cut.x) * length(d) > 10.0 * POINT_LENGTH {
            // An end that is not cut stays as it is, to the last bit.
            p = select(moved_p, moved_p + cut.x * d, cut.x > 0.0);
            q = select(moved_q, moved_p + cut.y * d, cut.y < 1.0);
            // What is cut off takes its light with it.
            seen = cut.y - cut.x;
        }
    }
    return State(
        p.x,
        p.y,
        q.x,
        q.y,
        // A trail of no light has no place: its flux shrinks, but does not change sign.
        seen * max(state.flux + step[0], 0.1 * abs(state.flux)),
        state.background + step[5],
        clamp(
            state.sigma * (1.0 + clamp(step[6] / state.sigma, -0.3, 0.3)),
            params.least_sigma,
            params.most_sigma,
        ),
    );
}

/// Light near either end, then its part on usable pixels, then the number of these: into `totals`.
fn cover_ends(lid: u32, request: u32, state: State) {
    let model = model_of(state);
    var ends = vec4<f32>();
    var n_usable = 0.0;
    for (var k = lid; k < n_stamp(request); k += WORKGROUP) {
        let p = pixel_at(request, k);
        if p.inside {
            let usable = f32(p.weight > 0.0);
            let at = along_across(model, p.x, p.y);
            let near = abs(at.x - vec2(0.0, model.length)) <= vec2(2.0 * model.sigma);
            let light = select(vec2(0.0), vec2(bell(at.y / model.sigma)), near);
            ends += vec4(light, usable * light);
            n_usable += usable;
        }
    }
    var own = array<vec4<f32>, N_VECTORS>();
    own[0] = ends;
    own[1] = vec4(n_usable, 0.0, 0.0, 0.0);
    reduce(lid, &own, 2u);
    for (var k = lid; k < 5u; k += WORKGROUP) {
        totals[k] = trial_sums[k];
    }
    workgroupBarrier();
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let request = params.first + group.x;
    best_flux(lid, request);
    if lid == 0u {
        let start = requests[request].start;
        var flux = 0.0;
        if trial_sums[1] > 0.0 {
            flux = trial_sums[0] / trial_sums[1];
        }
        current = State(
            start.x1,
            start.y1,
            requests[request].x2,
            requests[request].y2,
            flux,
            requests[request].background,
            start.sigma,
        );
    }
    accumulate(lid, request, workgroupUniformLoad(&current));
    for (var k = lid; k < N_SUMS; k += WORKGROUP) {
        sums[k] = trial_sums[k];
    }
    workgroupBarrier();

    var damping = 1e-3;
    var iterations = 0u;
    var converged = false;
    while iterations < params.max_iterations && !converged && damping <= MOST_DAMPING {
        iterations += 1u;
        if lid == 0u {
            var step: array<f32, N>;
            proposal = solve(movable(request, current), damping, &step);
            if proposal.solved != 0u {
                trial = apply(request, current, step);
            }
        }
        let proposed = workgroupUniformLoad(&proposal);
        if proposed.solved == 0u {
            damping *= 10.0;
        } else {
            converged = proposed.gain < params.stop_delta_chi2 && damping < params.most_stop_damping;
            let next = workgroupUniformLoad(&trial);
            accumulate(lid, request, next);
            let before = workgroupUniformLoad(&sums[CHI2]);
            let after = workgroupUniformLoad(&trial_sums[CHI2]);
            if after <= before * (1.0 + CHI2_TOLERANCE) {
                for (var k = lid; k < N_SUMS; k += WORKGROUP) {
                    sums[k] = trial_sums[k];
                }
                if lid == 0u {
                    current = next;
                }
                damping = max(damping * 0.1, 1e-6);
            } else if !converged {
                damping = max(damping * 10.0, TELLING_DAMPING);
            }
        }
        workgroupBarrier();
    }

    cover_ends(lid, request, workgroupUniformLoad(&current));
    if lid == 0u {
        var fit = Fit();
        fit.state = current;
        let off = params.expected_sigma - current.sigma;
        fit.chi2 = sums[CHI2] - params.sigma_weight * off * off;
        fit.power = sums[POWER];
        fit.n_pixels = totals[4];
        fit.iterations = iterations;
        fit.converged = u32(converged);
        for (var end = 0u; end < 2u; end++) {
            if totals[end] > 0.0 {
                fit.end_coverage[end] = totals[2u + end] / totals[end];
            }
        }
        var k = 0u;
        for (var i = 0u; i < N; i++) {
            for (var j = i; j < N; j++) {
                fit.information[k] = sums[place(i, j)];
                k += 1u;
            }
        }
        fits[request] = fit;
    }
}
