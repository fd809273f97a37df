"""One peer on the first hours of a record; run by `bench.analyze` in the peers' own environment."""

import json
import os
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def sleepecg(signal, fs):
    from sleepecg import detect_heartbeats

    return len(detect_heartbeats(signal, fs)), "QRS"


def neurokit2(signal, fs):
    from neurokit2 import ecg_process

    _, info = ecg_process(signal, sampling_rate=fs)
    return len(info["ECG_R_Peaks"]), "QRS, wave delineation, rate, quality"


def openvital(signal, fs):
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    from openvital.filters import ecg_classifier

    _, beats, _, _ = ecg_classifier.run({"ECG": {"vals": signal, "srate": fs}}, {}, ecg_classifier.cfg)
    return len(beats), "beats N S V, rhythm per 10 s"


def main():
    tool, path, hours = sys.argv[1], sys.argv[2], float(sys.argv[3])
    run = {"sleepecg": sleepecg, "neurokit2": neurokit2, "openvital": openvital}[tool]
    import wfdb

    began = time.perf_counter()
    fs = int(wfdb.rdheader(path).fs)
    signal = wfdb.rdrecord(path, sampto=int(hours * 3600 * fs)).p_signal[:, 0]
    read_s = time.perf_counter() - began
    began = time.perf_counter()
    beats, gives = run(signal, fs)
    stages = {"read_s": read_s, "run_s": time.perf_counter() - began}
    print(json.dumps({"beats": beats, "gives": gives, "stages": stages}))


if __name__ == "__main__":
    main()
