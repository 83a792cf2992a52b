"""An HTTP server with OpenAI's interface, over one backbone with the adapters of several runs."""

from polyprefix.config import ConfigError

try:
    import fastapi  # noqa: F401
    import prometheus_client  # noqa: F401
    import uvicorn  # noqa: F401
except ImportError as error:
    raise ConfigError(
        f"serving needs FastAPI, uvicorn and prometheus_client: pip install 'polyprefix[serve]' "
        f"({error})"
    ) from error
