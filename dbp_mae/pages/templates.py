"""Pages and texts from the Jinja templates beside the library's modules."""

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from dbp_mae.pages import formatting


def render(template: str, **values: Any) -> str:
    """Return a template of dbp_mae, by its path in that package, filled with `values`.

    What goes into a page (.html.j2) is escaped; `formatting.FILTERS` are there, and a name that is not
    given is an error.
    """
    environment = Environment(
        loader=PackageLoader("dbp_mae", ""),
        autoescape=template.endswith(".html.j2"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= formatting.FILTERS
    return environment.get_template(template).render(**values)
