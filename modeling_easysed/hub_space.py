"""The Space of `easysed app` on the Hub: one repository, one commit, the package beside its page.

    push_space("owner/demo", ["owner/cnn"])  ->  app.py, README.md, requirements.txt, modeling_easysed/

The package's own files go along, so that a Space needs no package index that knows `easysed`."""

import importlib.metadata
import re
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete

import modeling_easysed
from modeling_easysed.bundled import MODEL_VARIABLE
from modeling_easysed.hub import UPLOAD_ERRORS, HubError, connect, reason_of

PACKAGE = "modeling_easysed"
PAGE_FILES = ("app.py", "README.md")
DEVICE = "device"  # as space/app.py looks for it


def push_space(
    repo_id: str,
    models: Sequence[str] = (),
    *,
    device_page: str | Path | None = None,
    private: bool = False,
    token: str | None = None,
) -> str:
    """Publishes the Space; the same call again brings it up to date, and sends nothing that lies there already.

    Args:
        repo_id: "owner/name", or "name" for the token's owner.
        models: Hub ids of the checkpoints that it shows; none = those that are bundled, or what an earlier call said.
        device_page: folder that `easysed export --to web` wrote; the Space then serves and links it.
        private: a new Space is private.
        token: None = HF_TOKEN, or what `hf auth login` left.

    Returns:
        Its URL.

    Raises:
        HubError: nothing was published: no token or a refused one, no permission, no network, a bad id.
        ValueError: `device_page` is no such folder.
    """
    here = space_files(device_page)
    api, repo_id = connect(repo_id, token)
    try:
        api.create_repo(
            repo_id, repo_type="space", space_sdk="gradio", private=True if private else None, exist_ok=True
        )
        there = api.list_repo_files(repo_id, repo_type="space")
        own = (f"{PACKAGE}/", f"{DEVICE}/")
        stale = [name for name in there if name.startswith(own) and name not in here]
        operations: list[CommitOperationAdd | CommitOperationDelete] = [
            *(CommitOperationAdd(path_in_repo=name, path_or_fileobj=content) for name, content in here.items()),
            *(CommitOperationDelete(path_in_repo=name) for name in stale),
        ]
        api.create_commit(repo_id, operations, commit_message="EasySED, the Space", repo_type="space")
        if models:
            api.add_space_variable(repo_id, MODEL_VARIABLE, ",".join(models))
    except UPLOAD_ERRORS as error:
        raise HubError(f"the Space was not published: {reason_of(error, api.endpoint)}") from error
    return f"{api.endpoint}/spaces/{repo_id}"


def space_files(device_page: str | Path | None = None) -> dict[str, Path | bytes]:
    """{path in the Space: file or content}.

    Raises:
        ValueError: `device_page` holds no page.
    """
    page = files("modeling_easysed.space")
    found: dict[str, Path | bytes] = {name: Path(str(page / name)) for name in PAGE_FILES}
    found["requirements.txt"] = "".join(f"{one}\n" for one in requirements("space")).encode()
    # one package's folder may lie elsewhere where it is installed for development
    for package in (PACKAGE, f"{PACKAGE}.model_cards"):
        folder = Path(str(files(package))) if package != PACKAGE else Path(modeling_easysed.__file__).parent
        for path in files_in(folder):
            found[f"{package.replace('.', '/')}/{path.relative_to(folder).as_posix()}"] = path
    if device_page is not None:
        folder = Path(device_page).expanduser()
        if not (folder / "index.html").is_file():
            raise ValueError(f"folder {folder} has no page for the device: make it with easysed export --to web")
        found |= {f"{DEVICE}/{path.relative_to(folder).as_posix()}": path for path in files_in(folder)}
    return found


def files_in(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.rglob("*")) if path.is_file() and "__pycache__" not in path.parts]


def requirements(extra: str) -> list[str]:
    """What the installed package needs with an extra, in the words of its metadata: "torch>=2.8", ..."""
    lines = []
    for line in importlib.metadata.requires("easysed") or []:
        requirement, _, marker = line.partition(";")
        wanted = re.search(r"""extra == ["']([^"']+)""", marker)
        if wanted is None or wanted[1] == extra:
            lines.append(requirement.strip())
    return lines


__all__ = ["push_space", "requirements", "space_files"]
