"""A hook of mkdocs: what the documentation links to outside docs/ becomes a page under source/.

In the repository such links lead to files.  In the site a Markdown file is a page, and any other file, or a folder, is
a page that shows it.  A link to a file that is not there is left alone, so that mkdocs tells of it.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from mkdocs.structure.files import File

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
ALWAYS = ("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")
"""Pages of the navigation, linked to or not."""

_LINK = re.compile(r"\]\((?![a-z]+:|#)([^)#\s]*)(#[^)\s]*)?\)")
_LANGUAGES = {".py": "python", ".yaml": "yaml", ".json": "json", ".mjs": "javascript", ".sh": "bash", ".toml": "toml"}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add a page for each file that is linked to, and for those that these link to."""
    texts = [(path, path.read_text(encoding="utf-8")) for path in DOCS.rglob("*.md")]
    pending = [ROOT / name for name in ALWAYS] + [target for path, text in texts for target in _sources(text, path)]
    done: set[Path] = set()
    while pending:
        source = pending.pop()
        if source in done:
            continue
        done.add(source)
        text = _shown(source)
        if source.suffix == ".md":
            pending += _sources(text, source)
        files.append(File.generated(config, _uri(source), content=_rewritten(text, source)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Lead the links of a page to what stands in the site."""
    if page.file.generated_by is not None:
        return markdown
    return _rewritten(markdown, DOCS / page.file.src_uri)


def _target(link: str, source: Path) -> Path | None:
    """What `link` leads to from `source`, when that is a file or a folder of this project."""
    path = Path(os.path.normpath(source.parent / link))
    return path if link and path.is_relative_to(ROOT) and path.exists() else None


def _sources(text: str, source: Path) -> list[Path]:
    targets = (_target(match[1], source) for match in _LINK.finditer(text))
    return [target for target in targets if target is not None and not target.is_relative_to(DOCS)]


def _uri(path: Path) -> str:
    """Where `path` stands in the site, before it is rendered."""
    if path.is_relative_to(DOCS):
        return f"{path.relative_to(DOCS)}/index.md" if path.is_dir() else str(path.relative_to(DOCS))
    name = str(path.relative_to(ROOT))
    return f"source/{name}" if path.suffix == ".md" else f"source/{name}.md"


def _rewritten(text: str, source: Path) -> str:
    def lead(match: re.Match[str]) -> str:
        target = _target(match[1], source)
        if target is None:
            return match[0]
        here = os.path.dirname(_uri(source))
        return f"]({os.path.relpath(_uri(target), here or '.')}{match[2] or ''})"

    return _LINK.sub(lead, text)


def _shown(path: Path) -> str:
    """The page about `path`."""
    if path.suffix == ".md":
        return path.read_text(encoding="utf-8")
    head = f"---\nsearch:\n  exclude: true\n---\n# {path.relative_to(ROOT)}\n"
    if path.is_dir():
        inside = sorted(each for each in path.rglob("*") if each.is_file() and "__pycache__" not in each.parts)
        return head + "".join(f"\n## {each.relative_to(path)}\n\n{_fenced(each)}" for each in inside)
    return head + "\n" + _fenced(path)


def _fenced(path: Path) -> str:
    language = _LANGUAGES.get(path.suffix, "text")
    return f"~~~~~~{language}\n{path.read_text(encoding='utf-8').rstrip()}\n~~~~~~\n"
