#!/usr/bin/env python3
"""Times other programs and skystreak's `detect` on the same simulated frames, and prints the ratios.

    python3 -m venv venv && venv/bin/pip install -r benches/peers/requirements.txt
    cargo build --release --example detect --example simulate
    venv/bin/python benches/peers/compare.py --sizes 1024,2048,4096

Every row is measured in turns with `detect`: peer, detect, peer, detect. Medians are printed, and no ratio where
`detect` did not find exactly the streaks of the frame. findsat_mrt takes a minute at 2048 x 2048: leave it out with
--without findsat_mrt.
"""
import argparse
import json
import logging
import math
import os
import statistics
import subprocess
import time
import warnings

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")
warnings.filterwarnings("ignore")

import cv2
import numpy as np
import sep
from acstools.findsat_mrt import TrailFinder
from astropy.io import fits
from astropy.stats import SigmaClip
from photutils.background import Background2D, SExtractorBackground

PSF_SIGMA = 1.5
STREAKS = 4


class Frame:
    """A simulated frame: its file, its pixels as single precision, its true streaks."""

    def __init__(self, folder, binaries, side, stars):
        self.side = side
        name = f"peers{side}"
        subprocess.run([f"{binaries}/simulate", folder, "--name", name, "--width", str(side), "--height", str(side),
                        "--stars", str(stars), "--n", str(STREAKS), "--snr", "15:40", "--seed", "5"], check=True, stdout=subprocess.DEVNULL)
        self.path = os.path.join(folder, name + ".fits")
        self.pixels = np.ascontiguousarray(fits.getdata(self.path).astype(np.float32))
        with open(os.path.join(folder, name + ".truth.json")) as file:
            self.truth = [(s["x"], s["y"], max(3, 0.05 * s["length_px"])) for s in json.load(file)["streaks"]]


def gauss_kernel(sigma):
    reach = int(math.ceil(3 * sigma)) + 1
    profile = np.exp(-np.arange(-reach, reach + 1) ** 2 / (2 * sigma * sigma))
    kernel = np.outer(profile, profile)
    return kernel / kernel.sum()


def by_sep_background(frame):
    background = sep.Background(frame.pixels, bw=64, bh=64, fw=3, fh=3)
    return frame.pixels - background.back(), background.globalrms


def by_sep(frame):
    """Background, matched-filter extraction down to 2 sigma, and a cut on elongation."""
    residual, noise = by_sep_background(frame)
    # The threshold counts in the noise of the filtered image, which sep does not scale a single number by.
    found = sep.extract(residual, 2 / (2 * math.sqrt(math.pi) * PSF_SIGMA), err=noise,
                        filter_kernel=gauss_kernel(PSF_SIGMA), minarea=15, deblend_nthresh=16, deblend_cont=0.2)
    return found[(found["a"] > 2.5 * found["b"]) & (found["b"] < 2.5 * PSF_SIGMA)]


def by_photutils_background(frame):
    background = Background2D(frame.pixels, (64, 64), filter_size=(3, 3), sigma_clip=SigmaClip(3.0, maxiters=10),
                              bkg_estimator=SExtractorBackground())
    return background.background, background.background_rms


def by_hough(frame):
    """Background by sep, smoothing, a threshold at 3 sigma, the probabilistic Hough transform."""
    residual, noise = by_sep_background(frame)
    smooth = cv2.GaussianBlur(residual, (0, 0), PSF_SIGMA)
    bright = (smooth > 3 * noise / (2 * math.sqrt(math.pi) * PSF_SIGMA)).astype(np.uint8)
    return cv2.HoughLinesP(bright, 1, math.radians(0.5), 20, minLineLength=15, maxLineGap=4)


def by_findsat_mrt(frame):
    residual, _ = by_sep_background(frame)
    finder = TrailFinder(residual.astype(np.float64), processes=os.cpu_count(), threshold=5, plot=False,
                         save_catalog=False, save_diagnostic=False)
    finder.run_mrt()
    finder.find_mrt_sources()
    return finder.source_list


def detect(binaries, frame, threads=None):
    """Runs `detect` on the frame twice in one process, and returns the second report: buffers and tables are made."""
    environment = os.environ | ({"RAYON_NUM_THREADS": str(threads)} if threads else {})
    out = subprocess.run([f"{binaries}/detect", "--json", "--device", "cpu", frame.path, frame.path], check=True,
                         env=environment, stdout=subprocess.PIPE, text=True).stdout
    return json.loads(out.splitlines()[1])


def answers_right(frame, report):
    """Every true streak found once, and nothing else: its middle within 3 px, or 5 % of its length where a star hides an end."""
    found = [d for d in report["detections"] if d["kind"] == "streak" and d["role"] == "target"]

    def hits(x, y, tolerance):
        return sum(math.hypot(d["x"] - x, d["y"] - y) < tolerance for d in found)
    return len(found) == len(frame.truth) and all(hits(*true) == 1 for true in frame.truth)


# Peer, how it is called, the part of skystreak it is compared with, skystreak's threads, largest frame, most runs.
WHOLE = "total"
BACKGROUND = "background"
PEERS = [
    ("sep background + extract", by_sep, WHOLE, None, 8192, 99),
    ("sep background", by_sep_background, BACKGROUND, 1, 8192, 99),
    ("photutils background", by_photutils_background, BACKGROUND, None, 8192, 3),
    ("OpenCV Hough (sep background)", by_hough, WHOLE, None, 8192, 99),
    ("findsat_mrt", by_findsat_mrt, WHOLE, None, 2048, 1),
]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="1024,2048", help="sides of the frames, px")
    parser.add_argument("--stars", type=float, default=1200, help="stars per million pixels")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--without", default="", help="peers to leave out, parts of their names, comma-separated")
    parser.add_argument("--binaries", default="target/release/examples")
    parser.add_argument("--folder", default="target/peers")
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)
    sep.set_extract_pixstack(3_000_000)
    sep.set_sub_object_limit(20_000)
    os.makedirs(options.folder, exist_ok=True)
    left_out = [part for part in options.without.split(",") if part]

    print("| peer | size | threads of skystreak | peer, s | skystreak, s | skystreak / peer | answers |")
    print("|---|---|---|---|---|---|---|")
    for side in map(int, options.sizes.split(",")):
        frame = Frame(options.folder, options.binaries, side, options.stars)
        for name, run, part, threads, largest, most_runs in PEERS:
            if side > largest or any(out in name for out in left_out):
                continue
            theirs, ours, right = [], [], True
            if most_runs > 1:
                run(frame)
            for _ in range(min(options.runs, most_runs)):
                begin = time.perf_counter()
                run(frame)
                theirs.append(time.perf_counter() - begin)
                report = detect(options.binaries, frame, threads)
                ours.append(report["elapsed_ms"][part] / 1e3)
                right = right and answers_right(frame, report)
            peer, own = statistics.median(theirs), statistics.median(ours)
            ratio = f"{own / peer:.3g}" if right else "-"
            print(f"| {name} | {side} | {threads or 'all'} | {peer:.3f} | {own:.3f} | {ratio} | {'right' if right else 'WRONG'} |", flush=True)


main()
