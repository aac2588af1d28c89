"""The hook of mkdocs.yml: generated pages, pages from outside of docs/, links to files."""

from __future__ import annotations

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from mkdocs.utils import get_relative_url

from docs.generate import links, reference
from docs.generate.rooms import ROOT

WIDE = ("index.md", "architecture.md")
"""Pages without others beside them."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    written = {page: (ROOT / path).read_text() for path, page in links.PAGES.items() if path.endswith(".md")}
    written["license.md"] = f"# License\n\n```\n{(ROOT / 'LICENSE').read_text()}```\n"
    generated = reference.pages()
    own = {file.src_uri: file.content_string for file in files.documentation_pages()}
    shown = set().union(*(links.shown_files(text, page) for page, text in {**own, **written}.items()))
    shown |= {f"configs/{group}/{name}.yaml" for group in reference.GROUPS for name in reference.names_of(group)}
    shown |= {f"{path}/{name}" for path in list(shown) for name in links.listed(path)}
    sources = {links.in_site(path): links.source_page(path) for path in sorted(shown)}
    for page, content in {**written, **generated, **sources}.items():
        files.append(File.generated(config, page, content=content))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    if page.file.src_uri in WIDE:
        page.meta["hide"] = ["navigation"]
    if page.file.src_uri.startswith(("source/", "reference/")):
        return markdown
    return links.rewritten(markdown, page.file.src_uri)


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    def url_of(target: str) -> str | None:
        file = files.get_file_from_path(target)
        return None if file is None else get_relative_url(file.url, page.url)

    return links.linked(html, url_of)
