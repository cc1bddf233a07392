"""What is put around the endpoints of a worker."""

from serving import service
from serving.http.middleware import GatewayMiddleware


def test_nothing_outside_the_gateway_keeps_a_request_after_its_answer() -> None:
    names = [entry.cls.__name__ for entry in service.build_app().user_middleware]
    assert GatewayMiddleware.__name__ in names
    assert not {"TimeoutMiddleware", "OpenTelemetryMiddleware"} & set(names)
