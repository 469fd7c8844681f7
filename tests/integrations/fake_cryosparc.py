"""A server that speaks with the client of cryosparc-tools 5 and refuses what cryoSPARC's API says that it refuses.

It knows one project, P1, with a workspace, W1, and a job, J10, whose particles it holds. The rules are those in the
descriptions of the client (`cryosparc.api`): in which states of a job each call is allowed, that inputs have to be
connected and slots to exist, that saved datasets have all columns of their slots, and that rows of an output which
passes through are rows of its input.
"""

import io
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import uvicorn
from cryosparc.dataset import Dataset
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

PREFIX = "/api/cmd"
BUILDING, ACTIVE = {"building"}, {"running", "waiting"}
# Columns of each type of slot, after the name of the slot.
SLOTS = {
    "volume": {"volume_blob": [("path", "O"), ("idx", "<u4"), ("shape", "3<u4"), ("psize_A", "<f4")]},
    "mask": {"mask_blob": [("path", "O"), ("idx", "<u4"), ("shape", "3<u4"), ("psize_A", "<f4")]},
    "particle": {
        "blob": [("path", "O"), ("idx", "<u4"), ("shape", "2<u4"), ("psize_A", "<f4"), ("sign", "<f4")],
        "ctf": [("df1_A", "<f4")],
        "location": [("micrograph_path", "O")],
        "alignments3D": [
            ("split", "<u4"),
            ("shift", "2<f4"),
            ("pose", "3<f4"),
            ("psize_A", "<f4"),
            ("alpha", "<f4"),
            ("class_posterior", "<f4"),
        ],
    },
}
DATASET = {"application/x-cryosparc-dataset": {"schema": {"type": "string", "format": "binary"}}}
JOB = "Job"


def ref(model: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{model}"}


class FakeCryoSPARC:
    """The state of the instance: jobs by uid, saved datasets by job and output, events, and what was refused."""

    def __init__(self, project: Path, particles: Dataset) -> None:
        self.project, self.refused = project, []
        self.jobs: dict[str, dict[str, Any]] = {}
        self.saved: dict[tuple[str, str], Dataset] = {("J10", "particles"): particles}
        self.events: list[dict[str, Any]] = []
        self.assets: dict[str, bytes] = {}
        source = self._new_job("extract_micrographs_multi", "J10")
        slots = [{"name": name, "dtype": name} for name in ("blob", "ctf", "location")]
        source["spec"]["outputs"]["particles"] = {"type": "particle", "title": "Particles", "slots": slots}
        source["status"] = "completed"

    def _new_job(self, kind: str, uid: str) -> dict[str, Any]:
        resources = {"cpu": 1}
        spec = {"type": kind, "inputs": {}, "outputs": {}, "ui_tile_width": 1, "ui_tile_height": 1}
        (self.project / uid).mkdir(exist_ok=True)
        self.jobs[uid] = {
            **{"uid": uid, "project_uid": "P1", "spec": spec | {"resource_spec": resources}, "job_dir": uid},
            **{"status": "building", "job_dir_size_last_updated": "2026-01-01T00:00:00Z", "uid_num": int(uid[1:])},
            **{"project_uid_num": 1, "status_num": 0, "build_errors": []},
        }
        return self.jobs[uid]

    def job(self, values: dict[str, str], states: set[str] | None = None) -> dict[str, Any]:
        """A job of the path, which has to be in one of these states."""
        job = self.jobs.get(values["job_uid"]) if values["project_uid"] == "P1" else None
        if job is None:
            raise HTTPException(404, f"{values['project_uid']} {values['job_uid']} does not exist")
        if states is not None and job["status"] not in states:
            raise HTTPException(400, f"{job['uid']} is {job['status']}, not {' or '.join(sorted(states))}")
        return job

    # What can be called; each takes the values of path and query, and the body.

    def login(self, values: dict[str, str], body: bytes) -> Any:
        return {"access_token": "secret", "token_type": "bearer"}

    def me(self, values: dict[str, str], body: bytes) -> Any:
        return {"name": "a", "first_name": "A", "last_name": "B"}

    def version(self, values: dict[str, str], body: bytes) -> Any:
        return "v5.0.3"

    def register(self, values: dict[str, str], body: bytes) -> Any:
        volume = [{"name": name, "dtype": "volume_blob"} for name in ("map", "map_sharp", "map_half_A", "map_half_B")]
        outputs = {
            "volume": {"type": "volume", "title": "Volume", "slots": volume},
            "mask": {"type": "mask", "title": "Mask", "slots": [{"name": "mask", "dtype": "mask_blob"}]},
        }
        spec = {"type": "homo_refine_new", "title": "", "shorttitle": "", "description": "", "stability": "stable"}
        return {
            "categories": {},
            "specs": [spec | {"category": "refinement", "inputs": {}, "outputs": outputs, "params": {}}],
        }

    def create(self, values: dict[str, str], body: bytes) -> Any:
        if (values["project_uid"], values["workspace_uid"]) != ("P1", "W1"):
            raise HTTPException(404, f"{values['project_uid']} {values['workspace_uid']} does not exist")
        return self._new_job(values["type"], f"J{10 + len(self.jobs)}")

    def find_one(self, values: dict[str, str], body: bytes) -> Any:
        return self.job(values)

    def get_directory(self, values: dict[str, str], body: bytes) -> Any:
        return str(self.project / self.job(values)["uid"])

    def add_input(self, values: dict[str, str], body: bytes) -> Any:
        job, spec = self.job(values, BUILDING | ACTIVE), json.loads(body)
        self._require_slots(spec)
        job["spec"]["inputs"][values["input_name"]] = spec | {"connections": []}
        return job

    def add_output(self, values: dict[str, str], body: bytes) -> Any:
        job, spec = self.job(values, BUILDING | ACTIVE), json.loads(body)
        self._require_slots(spec)
        through = spec.get("passthrough")
        if through is not None and job["spec"]["inputs"].get(through, {}).get("type") != spec["type"]:
            raise HTTPException(422, f"no input {through} of type {spec['type']}")
        job["spec"]["outputs"][values["output_name"]] = spec
        return job

    def _require_slots(self, spec: dict[str, Any]) -> None:
        for slot in spec["slots"]:
            if slot["dtype"] not in SLOTS.get(spec["type"], {}):
                raise HTTPException(422, f"{spec['type']} has no slot of type {slot['dtype']}")

    def connect(self, values: dict[str, str], body: bytes) -> Any:
        job = self.job(values, BUILDING)
        source = self.job(values | {"job_uid": values["source_job_uid"]})
        output, wanted = source["spec"]["outputs"][values["source_output_name"]], job["spec"]["inputs"]
        given = {slot["name"] for slot in output["slots"]}
        lacking = [
            s["name"] for s in wanted[values["input_name"]]["slots"] if s.get("required") and s["name"] not in given
        ]
        if lacking:
            raise HTTPException(422, f"{source['uid']} has no {lacking}")
        connection = {"job_uid": source["uid"], "output": values["source_output_name"]}
        wanted[values["input_name"]]["connections"].append(connection)
        return job

    def mark_running(self, values: dict[str, str], body: bytes) -> Any:
        job = self.job(values, BUILDING)
        if any(not one["connections"] for one in job["spec"]["inputs"].values()):
            raise HTTPException(400, "an input is not connected")
        return self._set(job, values.get("status", "running"))

    def mark_completed(self, values: dict[str, str], body: bytes) -> Any:
        return self._set(self.job(values, ACTIVE | {"killed", "failed"}), "completed")

    def mark_failed(self, values: dict[str, str], body: bytes) -> Any:
        job = self.job(values, ACTIVE)
        self.events.append({"type": "error", "text": values.get("error", "")})
        return self._set(job, "failed")

    def _set(self, job: dict[str, Any], status: str) -> dict[str, Any]:
        job["status"] = status
        return job

    def load_input(self, values: dict[str, str], body: bytes) -> Any:
        (connection,) = self.job(values)["spec"]["inputs"][values["input_name"]]["connections"]
        return self.saved[connection["job_uid"], connection["output"]]

    def get_output_fields(self, values: dict[str, str], body: bytes) -> Any:
        return [["uid", "<u8"], *self._fields(self.job(values)["spec"]["outputs"][values["output_name"]])]

    def _fields(self, output: dict[str, Any]) -> list[list[str]]:
        columns = SLOTS[output["type"]]
        return [[f"{s['name']}/{name}", kind] for s in output["slots"] for name, kind in columns[s["dtype"]]]

    def save_output(self, values: dict[str, str], body: bytes) -> Any:
        job = self.job(values, ACTIVE)
        output, dataset = job["spec"]["outputs"][values["output_name"]], Dataset.load(io.BytesIO(body))
        lacking = [name for name, _ in self._fields(output) if name not in dataset]
        if lacking:
            raise HTTPException(422, f"{lacking} missing")
        if (through := output.get("passthrough")) is not None:
            given = self.load_input(values | {"input_name": through}, b"")
            if not np.isin(dataset["uid"], given["uid"]).all():
                raise HTTPException(422, "uids that the input has not")
        self.saved[job["uid"], values["output_name"]] = dataset
        return job

    def add_event_log(self, values: dict[str, str], body: bytes) -> Any:
        return self._event(values, {"type": values.get("type", "text"), "text": json.loads(body)})

    def add_image_log(self, values: dict[str, str], body: bytes) -> Any:
        return self._event(values, {"type": "image", "text": values["text"], "imgfiles": json.loads(body)})

    def _event(self, values: dict[str, str], event: dict[str, Any]) -> Any:
        self.events.append(
            event | {"project_uid": "P1", "job_uid": self.job(values)["uid"], "_id": str(len(self.events))}
        )
        return self.events[-1]

    def upload(self, values: dict[str, str], body: bytes) -> Any:
        name, kind = values["filename"], values["format"]
        self.assets[f"asset{len(self.assets)}"] = body
        return {"fileid": f"asset{len(self.assets) - 1}", "filename": name, "filetype": kind}

    def set_image(self, values: dict[str, str], body: bytes) -> Any:
        job, asset = self.job(values), json.loads(body)
        assert asset["fileid"] in self.assets
        job["ui_tile_images"] = [{"name": "tile0", "fileid": asset["fileid"]}]
        return job


_OF_JOB = "/projects/{project_uid}/jobs/{job_uid}"
_JSON = {"application/json": {"schema": {"title": "Body"}}}
_FORM = {"application/x-www-form-urlencoded": {"schema": {}}}
_STREAM = {"application/octet-stream": {"schema": {"title": "Stream", "type": "string", "format": "binary"}}}
# name of the client's function: method, path, query, body, schema of the response
CALLS: dict[str, tuple[str, str, tuple[str, ...], Any, Any, Callable[..., Any]]] = {
    "login": (
        "post",
        "/login",
        (),
        {"application/x-www-form-urlencoded": {"schema": {}}},
        ref("Token"),
        FakeCryoSPARC.login,
    ),
    "users.me": ("get", "/users/me", (), None, ref("User"), FakeCryoSPARC.me),
    "config.get_version": ("get", "/version", (), None, {"type": "string"}, FakeCryoSPARC.version),
    "job_register": ("get", "/register", (), None, ref("JobRegister"), FakeCryoSPARC.register),
    "jobs.create": (
        "post",
        "/projects/{project_uid}/workspaces/{workspace_uid}/jobs",
        ("type", "title", "description"),
        _JSON,
        ref(JOB),
        FakeCryoSPARC.create,
    ),
    "jobs.find_one": ("get", _OF_JOB, (), None, ref(JOB), FakeCryoSPARC.find_one),
    "jobs.get_directory": ("get", f"{_OF_JOB}/directory", (), None, {"type": "string"}, FakeCryoSPARC.get_directory),
    "jobs.add_external_input": (
        *("post", f"{_OF_JOB}/inputs/{{input_name}}", (), _JSON, ref(JOB), FakeCryoSPARC.add_input),
    ),
    "jobs.add_external_output": (
        *("post", f"{_OF_JOB}/outputs/{{output_name}}", (), _JSON, ref(JOB), FakeCryoSPARC.add_output),
    ),
    "jobs.connect": (
        "post",
        f"{_OF_JOB}/inputs/{{input_name}}/connections",
        ("source_output_name", "source_job_uid"),
        None,
        ref(JOB),
        FakeCryoSPARC.connect,
    ),
    "jobs.mark_running": ("post", f"{_OF_JOB}/running", ("status",), None, ref(JOB), FakeCryoSPARC.mark_running),
    "jobs.mark_completed": ("post", f"{_OF_JOB}/completed", (), None, ref(JOB), FakeCryoSPARC.mark_completed),
    "jobs.mark_failed": ("post", f"{_OF_JOB}/failed", ("error",), None, ref(JOB), FakeCryoSPARC.mark_failed),
    "jobs.load_input": (
        *("get", f"{_OF_JOB}/inputs/{{input_name}}/dataset", ("slots",), None, DATASET, FakeCryoSPARC.load_input),
    ),
    "jobs.get_output_fields": (
        "post",
        f"{_OF_JOB}/outputs/{{output_name}}/fields",
        (),
        _JSON,
        {},
        FakeCryoSPARC.get_output_fields,
    ),
    "jobs.save_output": (
        "post",
        f"{_OF_JOB}/outputs/{{output_name}}/dataset",
        ("version",),
        DATASET,
        ref(JOB),
        FakeCryoSPARC.save_output,
    ),
    "jobs.add_event_log": (
        *("post", f"{_OF_JOB}/events", ("type",), _JSON, ref("TextEvent"), FakeCryoSPARC.add_event_log),
    ),
    "jobs.add_image_log": (
        *("post", f"{_OF_JOB}/images", ("text", "flags"), _JSON, ref("ImageEvent"), FakeCryoSPARC.add_image_log),
    ),
    "jobs.set_tile_image": ("post", f"{_OF_JOB}/tile", (), _JSON, ref(JOB), FakeCryoSPARC.set_image),
    "assets.upload": (
        *("post", f"{_OF_JOB}/assets", ("filename", "format"), _STREAM, ref("GridFSAsset"), FakeCryoSPARC.upload),
    ),
}


def openapi() -> dict[str, Any]:
    """The description from which the client makes its functions."""
    paths: dict[str, Any] = {}
    for name, (method, path, query, body, response, _) in CALLS.items():
        inside = [part[1:-1] for part in path.split("/") if part.startswith("{")]
        parameters = [{"name": one, "in": "path", "required": True} for one in inside]
        parameters += [{"name": one, "in": "query", "required": False} for one in query]
        content = response if response is DATASET else {"application/json": {"schema": response}}
        endpoint = {"summary": name, "parameters": parameters, "responses": {"200": {"content": content}}}
        paths.setdefault(path, {})[method] = endpoint | ({"requestBody": {"content": body}} if body else {})
    return {"info": {}, "components": {}, "paths": paths}


@contextmanager
def serving(fake: FakeCryoSPARC) -> Iterator[str]:
    """Serve an instance, and give its address."""

    def handler(name: str, call: str) -> Callable[[Request], Any]:
        async def handle(request: Request) -> Response:
            if name != "login" and request.headers.get("Authorization") != "Bearer secret":
                return JSONResponse({"detail": "not logged in"}, 401)
            try:
                values = request.path_params | dict(request.query_params)
                answer = getattr(fake, call)(values, await request.body())
            except HTTPException as error:
                fake.refused.append(error.detail)
                return JSONResponse({"detail": error.detail}, error.status_code)
            if isinstance(answer, Dataset):
                return Response(b"".join(answer.stream()), media_type="application/x-cryosparc-dataset")
            return JSONResponse(answer)

        return handle

    async def describe(_: Request) -> Response:
        return JSONResponse(openapi())

    routes = [Route(f"{PREFIX}/openapi.json", describe)]
    routes += [
        Route(PREFIX + path, handler(name, call.__name__), methods=[method])
        for name, (method, path, *_, call) in CALLS.items()
    ]
    server = uvicorn.Server(uvicorn.Config(Starlette(routes=routes), port=0, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        thread.join(0.05)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join()
