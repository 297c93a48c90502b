"""A teacher and its students to the Hub: one repository each, one commit each, nothing sent that lies there already.

    push("runs/cnn/model", "owner/name")  ->  owner/name (the teacher), owner/name-exit1, owner/name-exit2, ...

What is uploaded depends on the checkpoint and the arguments alone, so the same call resumes one that failed."""

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, get_token
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils import validate_repo_id

if TYPE_CHECKING:
    from modeling_easysed.hub_folders import Repository

# Errors of the connection share the base of the Hub's own, whichever HTTP library its client stands on.
HTTP_ERRORS = (OSError, HfHubHTTPError.__mro__[1])
UPLOAD_ERRORS = (*HTTP_ERRORS, ValueError, RuntimeError)  # the client wraps the failure of one file in the last
OWN_SUFFIXES = ("_easysed.py", "reliability.png", "attribution.csv")  # taken away where a later push has them no more
HOW_TO_LOG_IN = "run `hf auth login`, or set HF_TOKEN to a token with write access"


class HubError(ValueError):
    """A push that did not succeed; the message is one line and says what to do next."""


class PartialPushError(HubError):
    """Some repositories are done and others are not.

    Attributes:
        urls: of the repositories that are done.
        reasons: {id of a repository that is not done: why}, one line each.
    """

    def __init__(self, urls: list[str], reasons: dict[str, str]) -> None:
        self.urls, self.reasons = urls, reasons
        missing = "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
        super().__init__(f"done: {', '.join(urls)}; not done: {missing}; the same call again sends what is missing")


def push(
    folder: str | Path,
    repo_id: str,
    exits: Sequence[int] | None = None,
    *,
    results: str | Path | None = None,
    clips: str | Path | None = None,
    base_model: str | None = None,
    license: str | None = None,
    private: bool = False,
    tag: str | None = None,
    token: str | None = None,
    progress: Callable[[str], None] | None = None,
) -> list[str]:
    """Uploads a checkpoint and its students, each with its code and a card.

    Args:
        folder: checkpoint folder or bundled name; tuned and calibrated or not.
        repo_id: of the teacher, "owner/name", or "name" for the token's owner; students get "-exit1", ... behind it.
        exits: which students, 1 = shallowest; None = every exit but the deepest, [] = the teacher alone.
        results: file that `training/evaluate.py --out` wrote; None = the cards say that nothing was measured.
        clips: folder of the training clips with metadata.csv, where the checkpoint has no attribution.csv.
        base_model: Hub id that the teacher was fine-tuned from.
        license: of the weights; None = as the config's provenance or the checkpoint's own card states it.
        private: new repositories are private.
        tag: marks the commits; new, or already at the same content.
        token: None = HF_TOKEN, or what `hf auth login` left.
        progress: called with a line before every repository.

    Returns:
        URLs, the teacher's first.

    Raises:
        PartialPushError: some repositories are done, others are not.
        HubError: nothing is done: no token or a refused one, no permission, no network, a bad id.
        ValueError: a checkpoint, results, clips or exits that cannot be used; nothing is done.
    """
    api, repo_id = connect(repo_id, token)
    # not at the top, so that a missing token is said before torch is imported
    from modeling_easysed.hub_folders import CardWishes, plan_repositories

    wishes = CardWishes(results, clips, base_model, license, tag)
    repositories = plan_repositories(folder, repo_id, exits, wishes, lambda name: _exists(api, name))
    return _upload_all(api, repositories, private, tag, progress)


def connect(repo_id: str, token: str | None = None) -> tuple[HfApi, str]:
    """A client whose token the Hub knows, and the full id of the repository.

    Raises:
        HubError: no token, a refused one, no network, or a bad id.
    """
    try:
        validate_repo_id(f"{repo_id}-exit9")
    except ValueError as error:
        raise HubError(f"repository id must be like owner/name, got {repo_id!r}: {error}") from error
    token = get_token() if token is None else token
    if token is None:
        raise HubError(f"no Hugging Face token: {HOW_TO_LOG_IN}")
    api = HfApi(token=token)
    try:
        user = api.whoami()["name"]
    except UPLOAD_ERRORS as error:
        raise HubError(reason_of(error, api.endpoint)) from error
    return api, repo_id if "/" in repo_id else f"{user}/{repo_id}"


def _exists(api: HfApi, repo_id: str) -> bool:
    try:
        return api.repo_exists(repo_id)
    except HTTP_ERRORS as error:
        raise HubError(reason_of(error, api.endpoint)) from error


def _upload_all(
    api: HfApi,
    repositories: list["Repository"],
    private: bool,
    tag: str | None,
    progress: Callable[[str], None] | None,
) -> list[str]:
    urls: list[str] = []
    reasons: dict[str, str] = {}
    for one in repositories:
        if progress is not None:
            progress(f"{one.repo_id} ({one.role})")
        with tempfile.TemporaryDirectory() as name:
            one.write(Path(name))
            try:
                urls.append(_upload(api, one, Path(name), private, tag))
            except UPLOAD_ERRORS as error:
                reasons[one.repo_id] = reason_of(error, api.endpoint)
    if reasons and not urls:
        raise HubError(f"nothing was pushed: {next(iter(reasons.values()))}")
    if reasons:
        raise PartialPushError(urls, reasons)
    return urls


def _upload(api: HfApi, repository: "Repository", folder: Path, private: bool, tag: str | None) -> str:
    """One commit with everything in the folder; returns the repository's URL."""
    repo_id = repository.repo_id
    api.create_repo(repo_id, private=True if private else None, exist_ok=True)
    if private and not api.repo_info(repo_id).private:
        raise HubError(f"{repo_id} is public already: leave --private out, or make it private in its settings first")
    names = sorted(path.name for path in folder.iterdir())
    there = api.list_repo_files(repo_id)
    stale = [name for name in there if name.endswith(OWN_SUFFIXES) and name not in names]
    operations: list[CommitOperationAdd | CommitOperationDelete] = [
        *(CommitOperationAdd(path_in_repo=name, path_or_fileobj=folder / name) for name in names),
        *(CommitOperationDelete(path_in_repo=name) for name in stale),
    ]
    # upload_folder would cut a large folder into several commits
    commit = api.create_commit(repo_id, operations, commit_message=f"EasySED, {repository.role}")
    if tag is not None:
        _set_tag(api, repo_id, tag, commit.oid)
    return f"{api.endpoint}/{repo_id}"


def _set_tag(api: HfApi, repo_id: str, tag: str, commit: str) -> None:
    """Marks the commit; a tag never moves, since somebody may have pinned it."""
    tags = {one.name: one.target_commit for one in api.list_repo_refs(repo_id).tags}
    if tag not in tags:
        api.create_tag(repo_id, tag=tag, revision=commit)
    elif tags[tag] != commit:
        raise HubError(f"{repo_id} is pushed, but its tag {tag} marks other content: run again with a new --tag")


def reason_of(error: BaseException, endpoint: str) -> str:
    """Why an upload failed, in one line with the next step."""
    while isinstance(error, RuntimeError) and error.__cause__ is not None:
        error = error.__cause__
    if not isinstance(error, HTTP_ERRORS):
        return " ".join(str(error).split())
    if not isinstance(error, HfHubHTTPError):
        said = " ".join(str(error).split())
        return f"the Hub at {endpoint} cannot be reached ({said}): check the network and HF_ENDPOINT"
    status, said = error.response.status_code, error.server_message
    if status == 401:
        return f"the Hub does not accept the token (401): {HOW_TO_LOG_IN}"
    if status == 403:
        return (
            f"no permission to write there (403{_also(said)}): use a token with write access and a namespace of yours"
        )
    return f"the Hub answered {status}{_also(said)}: try again later"


def _also(said: str | None) -> str:
    return "" if said is None else f", {' '.join(said.split())}"


__all__ = ["HubError", "PartialPushError", "connect", "push", "reason_of"]
