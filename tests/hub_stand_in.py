"""A small Hub on this machine for tests: repositories, commits, tags, LFS files, tokens, and failures on command.

    with HubStandIn() as hub:
        hub.fail_put = lambda number, repo_id: 500 if number >= 2 else None
        subprocess.run(command, env=client_environment(hub, home))

It speaks as much of the Hub's protocol as huggingface_hub uses for models, keeps everything in memory, and counts."""

import base64
import hashlib
import json
import os
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import yaml

USER, WRITE_TOKEN, READ_TOKEN = "tester", "hf_write", "hf_read"
TEXT_SUFFIXES = (".json", ".md", ".py", ".csv", ".txt", ".gitattributes")
DROP = "drop"  # what `fail_put` answers for a connection that is closed in the middle of a body


@dataclass
class File:
    """One file of a commit; `is_large` = it lies in the large file storage."""

    content: bytes
    is_large: bool

    @property
    def oid(self) -> str:
        """SHA-256 of a large file, git's SHA-1 of any other."""
        if self.is_large:
            return hashlib.sha256(self.content).hexdigest()
        return hashlib.sha1(b"blob %d\0" % len(self.content) + self.content).hexdigest()


@dataclass
class Commit:
    message: str
    files: dict[str, File]


@dataclass
class Repository:
    """Commits in order, the last is main; `large` is what was uploaded, whether committed or not.

    `kind` is "model" or "space"; the variables are those of a Space."""

    is_private: bool
    kind: str = "model"
    variables: dict[str, str] = field(default_factory=dict)
    commits: dict[str, Commit] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    large: dict[str, bytes] = field(default_factory=dict)

    def add(self, repo_id: str, commit: Commit) -> str:
        names = [(name, file.oid) for name, file in sorted(commit.files.items())]
        seed = json.dumps([repo_id, len(self.commits), names])
        sha = hashlib.sha1(seed.encode()).hexdigest()
        self.commits[sha] = commit
        return sha

    @property
    def main(self) -> str:
        return list(self.commits)[-1]

    def resolve(self, revision: str) -> str | None:
        if revision == "main":
            return self.main
        return self.tags.get(revision, revision if revision in self.commits else None)


class Refusal(Exception):
    """An answer that is no success: status, the Hub's error code, message."""

    def __init__(self, status: int, code: str, message: str, body: dict | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.body = status, code, {"error": message} if body is None else body


class HubStandIn:
    """State of the Hub, and its server while inside `with`.

    Attributes:
        repositories: by id.
        tokens: token to role, "write" or "read".
        puts: (sha256, bytes received) of every upload of a large file, failed ones too.
        fail_put: number of an upload (1 = the first) and its repository to the status of its failure, `DROP`, or None =
            let it pass.
        fail_commits: so many commits are refused.
        requests: "METHOD path" of everything that was asked.
    """

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.tokens = {WRITE_TOKEN: "write", READ_TOKEN: "read"}
        self.puts: list[tuple[str, int]] = []
        self.fail_put: Callable[[int, str], int | str | None] = lambda number, repo_id: None
        self.fail_commits = 0
        self.requests: list[str] = []
        self.lock = threading.RLock()

    def __enter__(self) -> "HubStandIn":
        hub = self

        class Handler(_Handler):
            pass

        Handler.hub = hub
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()

    def files(self, repo_id: str, revision: str = "main") -> dict[str, bytes]:
        """What a repository holds at a revision."""
        repository = self.repositories[repo_id]
        return {name: file.content for name, file in repository.commits[repository.resolve(revision)].files.items()}


def client_environment(hub: HubStandIn, home: Path, token: str | None = WRITE_TOKEN) -> dict[str, str]:
    """Of a process that takes the stand-in for the Hub; huggingface_hub reads it when it is imported."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING_FACE_"))}
    own = {"HF_ENDPOINT": hub.url, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    return {**kept, **own} if token is None else {**kept, **own, "HF_TOKEN": token}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: HubStandIn

    def log_message(self, *_: object) -> None:
        pass

    def answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        try:
            with self.hub.lock:
                self.hub.requests.append(f"{self.command} {path}")
                self.route(path)
        except Refusal as refusal:
            headers = {"X-Error-Code": refusal.code, "X-Error-Message": str(refusal)}
            self.send(refusal.status, json.dumps(refusal.body).encode(), headers)

    do_GET = do_HEAD = do_POST = do_PUT = answer  # noqa: N815

    def route(self, path: str) -> None:
        for method, pattern, serve in ROUTES:
            found = re.fullmatch(pattern, path)
            if found and self.command in method.split("|"):
                serve(self, *found.groups())
                return
        self.read_body()
        raise Refusal(404, "EntryNotFound", f"the stand-in has no {self.command} {path}")

    def read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **({} if headers is None else headers)}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def send_json(self, value: object, status: int = 200) -> None:
        self.send(status, json.dumps(value).encode(), {"Content-Type": "application/json"})

    # ---- who asks ----------------------------------------------------------------------------------------------------

    def role(self) -> str | None:
        """None without a token; a token that the Hub does not know is refused wherever it shows."""
        header = self.headers.get("Authorization")
        if header is None:
            return None
        role = self.hub.tokens.get(header.removeprefix("Bearer "))
        if role is None:
            raise Refusal(401, "", "Invalid credentials in Authorization header")
        return role

    def must_write(self, owner: str) -> None:
        role = self.role()
        if role is None:
            raise Refusal(401, "", "Authentication required")
        if role != "write" or owner != USER:
            raise Refusal(403, "", f"You don't have the rights to create a model under the namespace {owner}")

    def repository(self, repo_id: str) -> Repository:
        repository, role = self.hub.repositories.get(repo_id), self.role()
        if repository is None or (repository.is_private and role is None):
            raise Refusal(401 if role is None else 404, "RepoNotFound", f"Repository {repo_id} not found")
        return repository

    def commit_of(self, repo_id: str, revision: str) -> tuple[str, Commit]:
        repository = self.repository(repo_id)
        sha = repository.resolve(revision)
        if sha is None:
            raise Refusal(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return sha, repository.commits[sha]

    # ---- routes ------------------------------------------------------------------------------------------------------

    def who(self) -> None:
        role = self.role()
        if role is None:
            raise Refusal(401, "", "Authentication required")
        token = {"type": "access_token", "accessToken": {"displayName": "test", "role": role}}
        self.send_json({"type": "user", "name": USER, "orgs": [], "auth": token})

    def harnesses(self) -> None:
        self.send_json({"harnesses": {}, "standardEnvVars": []})

    def create(self) -> None:
        wanted = json.loads(self.read_body())
        owner = USER if wanted.get("organization") is None else wanted["organization"]
        self.must_write(owner)
        repo_id = f"{owner}/{wanted['name']}"
        answer = {"url": f"{self.hub.url}/{repo_id}", "id": repo_id}
        if repo_id in self.hub.repositories:
            self.send_json({"error": "You already created this model repo", **answer}, 409)
            return
        kind = wanted.get("type", "model")
        if kind == "space" and wanted.get("sdk") is None:
            raise Refusal(400, "", "a Space needs an sdk")
        repository = self.hub.repositories[repo_id] = Repository(wanted.get("visibility") == "private", kind)
        repository.add(repo_id, Commit("initial commit", {".gitattributes": File(b"*.safetensors\n", False)}))
        self.send_json(answer)

    def check_card(self) -> None:
        content = json.loads(self.read_body())["content"]
        errors = card_errors(content)
        if errors:
            body = {"errors": [{"message": error} for error in errors], "warnings": []}
            raise Refusal(400, "", "Invalid metadata", body)
        self.send_json({"errors": [], "warnings": []})

    def info(self, repo_id: str, revision: str | None = None) -> None:
        sha, commit = self.commit_of(repo_id, "main" if revision is None else revision)
        files = [{"rfilename": name} for name in commit.files]
        private = self.hub.repositories[repo_id].is_private
        self.send_json(
            {"id": repo_id, "modelId": repo_id, "sha": sha, "private": private, "siblings": files, "tags": []}
        )

    def refs(self, repo_id: str) -> None:
        repository = self.repository(repo_id)
        tags = [
            {"name": name, "ref": f"refs/tags/{name}", "targetCommit": sha} for name, sha in repository.tags.items()
        ]
        main = {"name": "main", "ref": "refs/heads/main", "targetCommit": repository.main}
        self.send_json({"branches": [main], "tags": tags, "converts": []})

    def tag(self, repo_id: str, revision: str) -> None:
        name = json.loads(self.read_body())["tag"]
        self.must_write(repo_id.split("/")[0])
        sha, _ = self.commit_of(repo_id, revision)
        tags = self.hub.repositories[repo_id].tags
        if name in tags:
            raise Refusal(409, "", "Tag reference exists already")
        tags[name] = sha
        self.send_json({})

    def set_variable(self, repo_id: str) -> None:
        wanted = json.loads(self.read_body())
        self.must_write(repo_id.split("/")[0])
        variables = self.repository(repo_id).variables
        variables[wanted["key"]] = wanted["value"]
        self.send_json({key: {"value": value} for key, value in variables.items()})

    def tree(self, repo_id: str, revision: str) -> None:
        _, commit = self.commit_of(repo_id, revision)
        self.send_json([entry(name, file) for name, file in commit.files.items()])

    def paths_info(self, repo_id: str, revision: str) -> None:
        wanted = json.loads(self.read_body())["paths"]
        _, commit = self.commit_of(repo_id, revision)
        self.send_json([entry(name, commit.files[name]) for name in wanted if name in commit.files])

    def preupload(self, repo_id: str, revision: str) -> None:
        asked = json.loads(self.read_body())["files"]
        self.must_write(repo_id.split("/")[0])
        _, commit = self.commit_of(repo_id, revision)
        answers = [
            {
                "path": one["path"],
                "shouldIgnore": False,
                "uploadMode": "regular" if one["path"].endswith(TEXT_SUFFIXES) else "lfs",
                "oid": commit.files[one["path"]].oid if one["path"] in commit.files else None,
            }
            for one in asked
        ]
        self.send_json({"files": answers})

    def lfs_batch(self, repo_id: str) -> None:
        asked = json.loads(self.read_body())["objects"]
        self.must_write(repo_id.split("/")[0])
        large = self.repository(repo_id).large
        answers = []
        for one in asked:
            answer = {"oid": one["oid"], "size": one["size"]}
            if one["oid"] not in large:
                answer["actions"] = {"upload": {"href": f"{self.hub.url}/large/{repo_id}/{one['oid']}"}}
            answers.append(answer)
        self.send_json({"transfer": "basic", "objects": answers})

    def put(self, repo_id: str, oid: str) -> None:
        number = len(self.hub.puts) + 1
        failure = self.hub.fail_put(number, repo_id)
        if failure == DROP:
            received = self.rfile.read(int(self.headers.get("Content-Length", 2)) // 2)
            self.hub.puts.append((oid, len(received)))
            self.close_connection = True
            self.connection.close()
            return
        content = self.read_body()
        self.hub.puts.append((oid, len(content)))
        if failure is not None:
            raise Refusal(int(failure), "", "the storage is not well")
        if hashlib.sha256(content).hexdigest() != oid:
            raise Refusal(400, "", "content and sha256 differ")
        self.hub.repositories[repo_id].large[oid] = content  # the address is the permission
        self.send(200, b"")

    def commit(self, repo_id: str, revision: str) -> None:
        lines = [json.loads(line) for line in self.read_body().splitlines()]
        self.must_write(repo_id.split("/")[0])
        if self.hub.fail_commits > 0:
            self.hub.fail_commits -= 1
            raise Refusal(418, "", "not now")
        _, before = self.commit_of(repo_id, revision)
        repository, files, message = self.hub.repositories[repo_id], dict(before.files), ""
        for line in lines:
            kind, value = line["key"], line["value"]
            if kind == "header":
                message = value["summary"]
            elif kind == "file":
                files[value["path"]] = File(base64.b64decode(value["content"]), False)
            elif kind == "lfsFile":
                if value["oid"] not in repository.large:
                    raise Refusal(400, "", f"LFS object {value['oid']} was not uploaded")
                files[value["path"]] = File(repository.large[value["oid"]], True)
            elif kind == "deletedFile":
                del files[value["path"]]
            else:
                raise Refusal(400, "", f"the stand-in knows no {kind}")
        sha = repository.add(repo_id, Commit(message, files))
        self.send_json({"commitOid": sha, "commitUrl": f"{self.hub.url}/{repo_id}/commit/{sha}"})

    def resolve(self, repo_id: str, revision: str, name: str) -> None:
        sha, commit = self.commit_of(repo_id, revision)
        file = commit.files.get(name)
        if file is None:
            raise Refusal(404, "EntryNotFound", f"{name} is not there")
        headers = {"X-Repo-Commit": sha, "ETag": f'"{file.oid}"'}
        if file.is_large:
            headers |= {"X-Linked-Etag": f'"{file.oid}"', "X-Linked-Size": str(len(file.content))}
        self.send(200, file.content, headers)


def entry(name: str, file: File) -> dict:
    """A file as the listings of the Hub show it."""
    shown = {"type": "file", "path": name, "size": len(file.content), "oid": file.oid[:40]}
    return (
        {**shown, "lfs": {"oid": file.oid, "size": len(file.content), "pointerSize": 130}} if file.is_large else shown
    )


def card_errors(content: str) -> list[str]:
    """What the Hub would say against the front matter of a card."""
    found = re.match(r"---\n(.*?)\n---\n", content, re.DOTALL)
    if found is None:
        return ["no front matter"]
    data = yaml.safe_load(found.group(1))
    texts = [key for key in ("license", "library_name", "pipeline_tag") if not isinstance(data.get(key, ""), str)]
    lists = [key for key in ("tags", "datasets") if not all(isinstance(x, str) for x in data.get(key, []))]
    errors = [f'"{key}" must be text' for key in texts + lists]
    for model in data.get("model-index", []):
        if not isinstance(model.get("name"), str) or not model.get("results"):
            errors.append('"model-index" must have names and results')
        for result in model.get("results", []):
            metrics = result.get("metrics", [])
            if "type" not in result["task"] or not all("type" in one and "value" in one for one in metrics):
                errors.append('"model-index" results must have a task and metrics with type and value')
    if data.get("license") == "no-such-license":
        errors.append('"license" must be one of the known licenses')
    return errors


REPO, KIND = r"([^/]+/[^/]+)", "(?:models|spaces)"
ROUTES: list[tuple[str, str, Callable]] = [
    ("GET", "/api/whoami-v2", _Handler.who),
    ("GET", "/api/agent-harnesses", _Handler.harnesses),
    ("POST", "/api/repos/create", _Handler.create),
    ("POST", "/api/validate-yaml", _Handler.check_card),
    ("GET", f"/api/{KIND}/{REPO}", _Handler.info),
    ("GET", f"/api/{KIND}/{REPO}/revision/(.+)", _Handler.info),
    ("GET", f"/api/{KIND}/{REPO}/refs", _Handler.refs),
    ("POST", f"/api/{KIND}/{REPO}/tag/(.+)", _Handler.tag),
    ("GET", f"/api/{KIND}/{REPO}/tree/([^/]+)", _Handler.tree),
    ("POST", f"/api/{KIND}/{REPO}/paths-info/([^/]+)", _Handler.paths_info),
    ("POST", f"/api/{KIND}/{REPO}/preupload/([^/]+)", _Handler.preupload),
    ("POST", f"/(?:spaces/)?{REPO}.git/info/lfs/objects/batch", _Handler.lfs_batch),
    ("PUT", f"/large/{REPO}/([0-9a-f]+)", _Handler.put),
    ("POST", f"/api/{KIND}/{REPO}/commit/([^/]+)", _Handler.commit),
    ("POST", f"/api/spaces/{REPO}/variables", _Handler.set_variable),
    ("GET|HEAD", f"/{REPO}/resolve/([^/]+)/(.+)", _Handler.resolve),
]
