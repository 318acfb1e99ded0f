#!/usr/bin/env python3
"""Hands a run's metrics to an experiment tracker, while it trains or afterwards: what metrics.jsonl says, and the run's
configuration.

    pip install wandb            # or mlflow, or trackio
    launch/track.py runs/a --to wandb --follow

Where to is the tracker's own matter: WANDB_API_KEY, WANDB_MODE=offline, MLFLOW_TRACKING_URI, TRACKIO_DIR. What has been
handed over is noted in RUN/track.json, so that the next call goes on from there, in the same run of the tracker. Steps that a
resumed run does once more are there already and are not handed over again.
"""

import argparse
import fcntl
import json
import os
import pathlib
import signal
import struct
import sys
import time
import tomllib

NAMES = {  # as in the run's event files
    "loss": "train/loss", "tokens": "train/tokens", "lr": "train/lr", "grad_norm": "train/grad_norm", "commitment": "train/commitment",
    "z_loss": "train/z_loss",
    "skipped": "train/skipped", "tokens_per_second": "speed/tokens_per_second", "seconds": "speed/seconds",
    "seconds_data": "speed/seconds_data", "seconds_head": "speed/seconds_head", "mfu": "speed/mfu", "heldout_loss": "heldout/loss",
    "heldout_perplexity": "heldout/perplexity", "heldout_bits_per_byte": "heldout/bits_per_byte",
    "heldout_cluster_loss": "heldout/cluster_loss", "heldout_member_loss": "heldout/member_loss"}
LINES_AT_ONCE = 200


class Refused(Exception):
    """What a user can mend, in one line."""


def points_of(line, place):
    """(stream, step, values) of a line of metrics.jsonl; None for lines about checkpoints, which have no curves."""
    try:
        entry = json.loads(line)
        step = entry["step"]
    except (ValueError, KeyError, TypeError) as error:
        raise Refused(f"{place}: is no line of metrics; mend it or take it out") from error
    stream = "heldout" if "heldout_loss" in entry else "train" if "loss" in entry else None
    if stream is None:
        return None
    # The loss of a skipped step is null; a held-out line's tokens and seconds would be points of the training's curves.
    values = {NAMES[key]: float(value) for key, value in entry.items()
              if key in NAMES and value is not None and (stream == "train" or key.startswith("heldout_"))}
    if entry.get("memory_bytes") is not None:
        values["memory/peak_MiB"] = entry["memory_bytes"] / 2**20
    for key, name in (("loss_by_source", "train/loss"), ("epochs", "train/epochs")):
        values.update({f"{name}/{source}": float(value) for source, value in entry.get(key, {}).items() if value is not None})
    for key, name in (("future_losses", "train/future_loss"), ("heldout_future_losses", "heldout/future_loss")):
        values.update({f"{name}_{j}": float(loss) for j, loss in enumerate(entry.get(key, []), 1) if loss is not None})
    values.update({f"heldout/loss/{name}": float(of_set["loss"]) for name, of_set in entry.get("heldout_by_set", {}).items()
                   if of_set["loss"] is not None})
    return stream, step, values


class Lines:
    """The whole lines of a file that another process appends to, cuts or replaces."""

    def __init__(self, path):
        self.path, self.place, self.number, self.file = path, 0, 0, None

    def read(self):
        """(line number, text) of those that came since the last call; of all, where the file is another one or shorter."""
        try:
            with open(self.path, "rb") as file:
                status = os.fstat(file.fileno())
                if (status.st_dev, status.st_ino) != self.file or status.st_size < self.place:
                    self.place, self.number, self.file = 0, 0, (status.st_dev, status.st_ino)
                file.seek(self.place)
                text = file.read()
        except FileNotFoundError:
            return
        except OSError as error:
            raise Refused(f"{self.path}: cannot be read: {error.strerror}") from error
        for line in text[: text.rfind(b"\n") + 1].splitlines(keepends=True):  # one that is being written comes next time
            self.place += len(line)
            self.number += 1
            yield self.number, line.decode("utf-8", "replace")


class State:
    """RUN/track.json: for each tracker the run's id there and the last step handed over of each stream."""

    def __init__(self, folder, tracker):
        self.path, self.tracker = folder / "track.json", tracker
        try:
            self.all = json.loads(self.path.read_text()) if self.path.exists() else {}
            self.mine = self.all.setdefault(tracker, {"id": None, "sent": {}})
            self.id, self.sent = self.mine["id"], self.mine["sent"]
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise Refused(f"{self.path}: is damaged; remove it to hand everything over to another run of the tracker") from error

    def is_sent(self, stream, step):
        return step <= self.sent.get(stream, -1)

    def note(self, stream, step):
        self.sent[stream] = max(step, self.sent.get(stream, -1))

    def save(self):
        self.mine["id"] = self.id
        partial = self.path.with_name("track.json.partial")
        try:
            partial.write_text(json.dumps(self.all, indent=1) + "\n")
            partial.replace(self.path)
        except OSError as error:
            raise Refused(f"{self.path}: cannot be written: {error.strerror}; what is handed over has to be noted there") from error


class AtOnce:
    """A tracker whose run takes lines as they come."""

    def last_steps(self):
        return {}

    def log(self, step, values):
        self.run.log(values, step=step)

    def flush(self):
        pass

    def close(self):
        self.run.finish()


class Wandb(AtOnce):
    """Weights & Biases itself drops what is said of a step before its last one."""

    def __init__(self, arguments, config, run_id):
        import wandb

        self.run = wandb.init(project=arguments.project, name=arguments.name, id=run_id, resume="allow", config=config)
        self.id = self.run.id


class Mlflow:
    MOST = 1000  # metrics of a request; 100 parameters

    def __init__(self, arguments, config, run_id):
        import mlflow

        self.entities, self.client, self.waiting = mlflow.entities, mlflow.MlflowClient(), []
        if run_id is None:
            experiment = mlflow.set_experiment(arguments.project).experiment_id
            run_id = self.client.create_run(experiment, run_name=arguments.name).info.run_id
            parameters = [self.entities.Param(key, str(value)) for key, value in config.items()]
            for begin in range(0, len(parameters), 100):
                self.client.log_batch(run_id, params=parameters[begin : begin + 100])
        else:
            self.client.update_run(run_id, status="RUNNING")
        self.id = run_id

    def last_steps(self):
        """MLflow keeps two values of a step: what came over before a crash and is not noted would be there twice."""
        return {stream: max((point.step for point in self.client.get_metric_history(self.id, f"{stream}/loss")), default=-1)
                for stream in ("train", "heldout")}

    def log(self, step, values):
        now = int(time.time() * 1000)
        self.waiting += [self.entities.Metric(key, value, now, step) for key, value in values.items()]

    def flush(self):
        while self.waiting:
            self.client.log_batch(self.id, metrics=self.waiting[: self.MOST])
            del self.waiting[: self.MOST]

    def close(self):
        self.client.set_terminated(self.id)


class Trackio(AtOnce):
    def __init__(self, arguments, config, run_id):
        import trackio

        self.id = run_id or arguments.name  # a run is known by its name
        self.run = trackio.init(project=arguments.project, name=self.id, config=config, resume="allow", embed=False, auto_log_gpu=False)


TRACKERS = {"wandb": Wandb, "mlflow": Mlflow, "trackio": Trackio}


def configuration(folder):
    """{"model.d_model": 768, ...} of the run."""
    try:
        sections = tomllib.loads((folder / "config.toml").read_text())
    except FileNotFoundError as error:
        raise Refused(f"{folder}: has no config.toml: it is no folder of a run; name run.dir") from error
    except ValueError as error:
        raise Refused(f"{folder / 'config.toml'}: {error}") from error
    return {f"{section}.{key}": value for section, keys in sections.items() if isinstance(keys, dict)
            for key, value in keys.items()}


def is_being_written(folder):
    """Whether a job holds run.lock: asked, not taken, which a job that starts would find in its way."""
    try:
        with open(folder / "run.lock", "rb") as file:
            asked = struct.pack("hhqqi", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
            return struct.unpack("hhqqi", fcntl.fcntl(file, fcntl.F_OFD_GETLK, asked))[0] != fcntl.F_UNLCK
    except OSError:
        return False  # no lock, or a file system without locks


def hand_over(lines, state, tracker):
    """All that is there and not yet handed over; returns the last training step."""
    count = last = 0
    for number, line in lines.read():
        points = points_of(line, f"{lines.path}:{number}")
        if points is None:
            continue
        stream, step, values = points
        last = max(last, step) if stream == "train" else last
        if state.is_sent(stream, step):
            continue
        tracker.log(step, values)
        state.note(stream, step)
        count += 1
        if count % LINES_AT_ONCE == 0:
            tracker.flush()
            state.save()
    tracker.flush()
    state.save()
    return last


def follow(folder, lines, state, tracker, every):
    """Hands over what comes, until train.steps are done and no job writes the run; a stopped run may be resumed."""
    step = 0
    while True:
        at_work = is_being_written(folder)  # before reading: the last line is written before the lock is given back
        step = max(step, hand_over(lines, state, tracker))
        if not at_work and step >= configuration(folder).get("train.steps", 0):
            return
        time.sleep(every)


def track(arguments):
    folder = arguments.run
    metrics = folder / "metrics.jsonl"
    config = configuration(folder)
    if not metrics.exists() and not arguments.follow:
        raise Refused(f"{metrics}: is not there: the run has not done a step; --follow waits for it")
    state = State(folder, arguments.to)
    try:
        tracker = TRACKERS[arguments.to](arguments, config, state.id)
    except ImportError as error:
        raise Refused(f"--to {arguments.to}: {sys.executable} cannot import {error.name}: pip install {arguments.to}") from error
    state.id = tracker.id
    for stream, step in tracker.last_steps().items():
        state.note(stream, step)
    state.save()
    before, lines = dict(state.sent), Lines(metrics)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a batch system's end is like Ctrl-C
    try:
        if arguments.follow:
            follow(folder, lines, state, tracker, arguments.every)
        else:
            hand_over(lines, state, tracker)
    except KeyboardInterrupt:
        tracker.flush()
        state.save()
    finally:
        tracker.close()
    told = ", ".join(f"{stream} to step {step}" for stream, step in sorted(state.sent.items()) if step != before.get(stream, -1))
    print(f"track.py: handed over to {arguments.to}, run {tracker.id}: {told or 'nothing that was not there already'}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=pathlib.Path, metavar="RUN", help="the run's folder (run.dir)")
    parser.add_argument("--to", choices=sorted(TRACKERS), required=True, help="the tracker")
    parser.add_argument("--project", default="vqlm", help="project or experiment there (default: vqlm)")
    parser.add_argument("--name", help="the run's name there (default: that of its folder)")
    parser.add_argument("--follow", action="store_true", help="go on while the run trains, until train.steps are done")
    parser.add_argument("--every", type=float, default=10, metavar="SECONDS", help="of --follow: how often to look (default: 10)")
    arguments = parser.parse_args()
    arguments.name = arguments.name or arguments.run.resolve().name
    try:
        track(arguments)
    except Refused as refused:
        sys.exit(f"track.py: error: {refused}")
    except Exception as error:  # the tracker's own: no network, no account, a run that was deleted there
        what = " ".join(str(error).split())
        sys.exit(f"track.py: error: {arguments.to}: {type(error).__name__}: {what}; call it again: it goes on from {arguments.run / 'track.json'}")


if __name__ == "__main__":
    main()
