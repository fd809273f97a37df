"""One peer on recordings of one lead, in the peers' own environment (`bench.analyze.peer_python`).

peer.py TOOL RECORD HOURS           the first hours of a record; prints how many beats and how long it took
peer.py beats TOOL FOLDER RECORD ...   beats of whole records, times and classes, into FOLDER/<record>.json each
"""

import json
import os
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
WARM_UP_S = 60


def sleepecg(signal, fs):
    from sleepecg import detect_heartbeats

    return detect_heartbeats(signal, fs) / fs, None, "QRS"


def neurokit2(signal, fs):
    from neurokit2 import ecg_process

    _, info = ecg_process(signal, sampling_rate=fs)
    return info["ECG_R_Peaks"] / fs, None, "QRS, wave delineation, rate, quality"


def neurokit2_peaks(signal, fs):
    from neurokit2 import ecg_clean, ecg_peaks

    _, info = ecg_peaks(ecg_clean(signal, sampling_rate=fs), sampling_rate=fs)
    return info["ECG_R_Peaks"] / fs, None, "QRS"


def xqrs(signal, fs):
    from wfdb.processing import xqrs_detect

    return xqrs_detect(signal, fs, verbose=False) / fs, None, "QRS"


def openvital(signal, fs):
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    from openvital.filters import ecg_classifier

    _, beats, _, _ = ecg_classifier.run({"ECG": {"vals": signal, "srate": fs}}, {}, ecg_classifier.cfg)
    return [beat["dt"] for beat in beats], [beat["val"] for beat in beats], "beats N S V, rhythm per 10 s"


def openecg(signal, fs):
    import numpy as np
    from openecg import detect_qrs
    from openecg.layered import BEAT_NAMES, BEAT_NONE, encode_stream, load_codec_onnx
    from scipy.signal import resample_poly

    at_500_hz = resample_poly(signal, 500, fs)
    peaks = detect_qrs(at_500_hz, 500)
    read = encode_stream(at_500_hz.astype(np.float32), fs=500, model=load_codec_onnx())
    labels = []
    for peak in peaks:  # as openecg.report does: the commonest label within 60 ms
        near = read.beat[max(0, peak - 30) : peak + 31]
        near = near[near != BEAT_NONE]
        name = BEAT_NAMES[int(np.bincount(near).argmax())] if near.size else "none"
        labels.append({"vpc": "V", "fusion": "F", "paced": "Q"}.get(name, "N"))
    return peaks / 500, labels, "beats N V F, waves, rhythm"


TOOLS = {
    "sleepecg": sleepecg,
    "neurokit2": neurokit2,
    "neurokit2-peaks": neurokit2_peaks,
    "xqrs": xqrs,
    "openvital": openvital,
    "openecg": openecg,
}


def read(path, hours=None):
    import numpy as np
    import wfdb

    header = wfdb.rdheader(path)
    fs = int(header.fs)
    sampto = None if hours is None else min(int(hours * 3600 * fs), header.sig_len)
    return np.nan_to_num(wfdb.rdrecord(path, sampto=sampto, channels=[0]).p_signal[:, 0]), fs


def count(tool, path, hours):
    began = time.perf_counter()
    signal, fs = read(path, hours)
    read_s = time.perf_counter() - began
    began = time.perf_counter()
    at_s, _, gives = TOOLS[tool](signal, fs)
    stages = {"read_s": read_s, "run_s": time.perf_counter() - began}
    print(json.dumps({"beats": len(at_s), "gives": gives, "stages": stages}))


def beats(tool, folder, paths):
    os.makedirs(folder, exist_ok=True)
    for n, path in enumerate(paths):
        signal, fs = read(path)
        if n == 0:  # imports and model loading are not reading
            TOOLS[tool](signal[: WARM_UP_S * fs], fs)
        began = time.process_time()
        at_s, labels, gives = TOOLS[tool](signal, fs)
        cpu_s = time.process_time() - began
        found = {
            "at_s": [round(float(at), 4) for at in at_s],
            "labels": None if labels is None else list(labels),
            "seconds": len(signal) / fs,
            "cpu_s": cpu_s,
            "gives": gives,
        }
        out = os.path.join(folder, os.path.basename(path) + ".json")
        with open(out + ".part", "w", encoding="utf-8") as file:
            json.dump(found, file)
        os.replace(out + ".part", out)


def main():
    if sys.argv[1] == "beats":
        beats(sys.argv[2], sys.argv[3], sys.argv[4:])
    else:
        count(sys.argv[1], sys.argv[2], float(sys.argv[3]))


if __name__ == "__main__":
    main()
