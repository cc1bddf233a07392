"""The BentoML service of one shop: bulk prediction endpoints, with the FastAPI app for everything else mounted on it.

Reads about one customer and lists are in the FastAPI app, where a request costs half as much. GatewayMiddleware wraps
both.
"""

from __future__ import annotations

import atexit
import gc
import logging
import os
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from typing import Any, TypeVar, cast

import bentoml
from starlette.applications import Starlette

from customers import tracing
from serving import logs, runtime
from serving.api import openapi, predictions, related_products
from serving.api.requested_customers import RequestedCustomers, resolve_customers
from serving.api.schemas.common import CustomersQuestion
from serving.api.schemas.predictions import (
    ChurnAnswer,
    NextPurchaseAnswer,
    OffersAnswer,
    OffersQuestion,
    RestockAnswer,
    RestockQuestion,
    ValueAnswer,
)
from serving.api.schemas.products import AudienceAnswer, AudienceQuestion, SimilarAnswer, SimilarQuestion
from serving.api.schemas.recommendations import RecommendationAnswer, RecommendationQuestion
from serving.app import create_app, error_response
from serving.audiences import audience
from serving.console import templating
from serving.http import problems, prometheus, request_context
from serving.http.middleware import GatewayMiddleware
from serving.http.shop_metrics import ShopCollector
from serving.http.tracing import TracingMiddleware
from serving.ingestion import score_writer
from serving.lookup import answers
from serving.privacy import erasure
from serving.scoring import refresh

AnswerT = TypeVar("AnswerT")


# BentoML's own metrics and access log name whole paths, customers' ids in them; ours name route templates.
@bentoml.service(
    name="regulars",
    workers=int(os.environ.get("REGULARS_WORKERS", "1")),
    threads=4,
    traffic={"timeout": 600},  # longer than the gateway's own timeout, which answers with a problem document
    metrics={"enabled": False},
    logging={"access": {"enabled": False}},
)
class Regulars:
    """Predictions for many customers at once: recommendations, offers, churn, next purchase, value and restock."""

    def __init__(self) -> None:
        """Open the shop before the first request: the feature store alone takes seconds to load."""
        server_runtime = runtime.get_runtime()
        server_runtime.warm_up()
        # Finish what a server that was stopped early has left undone.
        refresh.process_queue(server_runtime)
        erasure.complete_erasures(server_runtime)
        gc.collect()
        atexit.register(gc.unfreeze)
        gc.freeze()  # what is there by now stays: no later collection, in the middle of a request, looks at it again

    @bentoml.on_shutdown
    def finish(self) -> None:
        """Store the scores of customers who have new features: else they would wait for the next start or sale."""
        score_writer.get_writer().wait()

    @bentoml.api(route="/v1/recommendations")
    def recommendations(self, question: RecommendationQuestion, /) -> RecommendationAnswer:
        """The products that each customer is most likely to buy next."""
        return _answer_or_problem(lambda: predictions.answer_recommendations(_resolve(question), question))

    @bentoml.api(route="/v1/offers")
    def offers(self, question: OffersQuestion, /) -> OffersAnswer:
        """The eligible offers for each customer, best first, and why each other offer is not eligible."""
        return _answer_or_problem(lambda: predictions.answer_offers(_resolve(question), question))

    @bentoml.api(route="/v1/churn")
    def churn(self, question: CustomersQuestion, /) -> ChurnAnswer:
        """The probability that each customer buys nothing within the churn horizon, with reasons."""
        return _answer_or_problem(lambda: predictions.answer_churn(_resolve(question)))

    @bentoml.api(route="/v1/next-purchase")
    def next_purchase(self, question: CustomersQuestion, /) -> NextPurchaseAnswer:
        """When each customer is expected to buy next; at the churn horizon it agrees with the churn probability."""
        return _answer_or_problem(lambda: predictions.answer_next_purchase(_resolve(question)))

    @bentoml.api(route="/v1/value")
    def value(self, question: CustomersQuestion, /) -> ValueAnswer:
        """The expected spend of each customer within the value horizon."""
        return _answer_or_problem(lambda: predictions.answer_value(_resolve(question)))

    @bentoml.api(route="/v1/restock")
    def restock(self, question: RestockQuestion, /) -> RestockAnswer:
        """The categories that each customer is likely to buy again within the requested days."""
        return _answer_or_problem(lambda: predictions.answer_restock(_resolve(question), question))

    @bentoml.api(route="/v1/similar")
    def similar(self, question: SimilarQuestion, /) -> SimilarAnswer:
        """Similar products, complements, or more expensive alternatives for each product.

        Of the shop's merchandising rules only those that exclude products apply: exclusions, stock, minimum margin
        and repurchase.
        """
        return _answer_or_problem(lambda: related_products.answer_related_products(runtime.get_runtime(), question))

    @bentoml.api(route="/v1/audience")
    def audience(self, question: AudienceQuestion, /) -> AudienceAnswer:
        """The customers most likely to buy given products or from given categories, or to redeem an offer."""
        return _answer_or_problem(lambda: audience.answer_audience(runtime.get_runtime(), question))


def _resolve(question: CustomersQuestion) -> RequestedCustomers:
    return resolve_customers(runtime.get_runtime(), question.customer_ids)


def _answer_or_problem(compute: Callable[[], AnswerT]) -> AnswerT:
    """Run an endpoint; an error becomes a problem response, because BentoML would log it and reword it."""
    try:
        return compute()
    except Exception as error:
        return cast(AnswerT, error_response(error))


def _openapi_document() -> dict[str, Any]:
    try:
        package_version = version("regulars")
    except PackageNotFoundError:  # a built bento carries the code without installing it
        package_version = "0"
    return openapi.build_document(_service.openapi_spec.asdict(), package_version)


logs.configure(request_context.log_fields)
prometheus.add_collector(ShopCollector(runtime.get_runtime))
logging.getLogger("feast").setLevel(logging.ERROR)  # Feast's advice about itself is of no use to the shop
logging.getLogger("bentoml._internal.server.http_app").addFilter(problems.PrivacyLogFilter())
_service = cast(Any, Regulars)  # the decorator returns a BentoML Service, which its types do not show
if tracing.is_enabled():
    _service.add_asgi_middleware(TracingMiddleware)
_service.add_asgi_middleware(
    GatewayMiddleware,
    render_problem_page=templating.render_problem,
    look_up=answers.answer_from_lookup,
    answers_in_outage=answers.answers_in_outage,
)
_service.mount_asgi_app(create_app(_openapi_document), path="/")


def build_app() -> Starlette:
    """The service as an ASGI app, without two things that BentoML puts around the gateway.

    Its timeout keeps everything of a request in memory until the time is over, long after the answer, and the gateway
    has a timeout of its own. Its spans cost as much as an answer and are exported nowhere.
    """
    app: Starlette = _service.to_asgi()
    unwanted = {"TimeoutMiddleware", "OpenTelemetryMiddleware"}
    app.user_middleware = [entry for entry in app.user_middleware if getattr(entry.cls, "__name__", "") not in unwanted]
    return app
