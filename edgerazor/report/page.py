"""Pages made of templates that share one style."""

from importlib import resources
from typing import Any


def render_page(template: str, *, package: str = "edgerazor.report", **values: Any) -> str:
    """The text of a template, with what is put into HTML escaped.

    Args:
        template: file in the folder `templates` of the package; those of this room may be extended and included.
        package: whose template it is.
        values: what the template names.
    """
    import jinja2

    places = [jinja2.PackageLoader(name, "templates") for name in dict.fromkeys((package, "edgerazor.report"))]
    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader(places),
        autoescape=lambda name: bool(name and name.endswith(".html.j2")),
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template(template).render(**values)


def colours() -> str:
    """CSS that names the colours of pages and pictures, light, dark and printed."""
    return (resources.files("edgerazor.report") / "templates" / "colours.css").read_text(encoding="utf-8")
