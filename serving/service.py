"""The counter: one BentoML service where the shop's programs ask about many customers at once.

Bulk questions are BentoML's; whatever is read about one customer, and lists, is the app behind it, which
costs half as much a request. The door stands before both.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from typing import Any, TypeVar, cast

import bentoml

from serving import runtime
from serving.api import openapi, predictions, related_products
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
from serving.http import problems
from serving.http.middleware import GatewayMiddleware
from serving.privacy import erasure
from serving.scoring import refresh

AnswerT = TypeVar("AnswerT")


# BentoML's own metrics and access log name whole paths, customers' ids in them; ours name route templates.
@bentoml.service(
    name="regulars",
    workers=int(os.environ.get("REGULARS_WORKERS", "1")),
    threads=4,
    traffic={"timeout": 600},  # the door is less patient, and says so in a problem document
    metrics={"enabled": False},
    logging={"access": {"enabled": False}},
)
class Regulars:
    """Which customers are coming back, when, for what, and who is slipping away."""

    def __init__(self) -> None:
        """Open the shop before the first question: the feature store alone takes seconds to load."""
        server_runtime = runtime.get_runtime()
        server_runtime.warm_up()
        # What a server that was cut short left undone, this one makes up for.
        refresh.process_queue(server_runtime)
        erasure.complete_erasures(server_runtime)

    @bentoml.api(route="/v1/recommendations")
    def recommendations(self, question: RecommendationQuestion, /) -> RecommendationAnswer:
        """Which products each customer is likeliest to buy next."""
        return _answer_or_problem(lambda: predictions.answer_recommendations(runtime.get_runtime(), question))

    @bentoml.api(route="/v1/offers")
    def offers(self, question: OffersQuestion, /) -> OffersAnswer:
        """Which offers to make to each customer, and of every other one why not."""
        return _answer_or_problem(lambda: predictions.answer_offers(runtime.get_runtime(), question))

    @bentoml.api(route="/v1/churn")
    def churn(self, question: CustomersQuestion, /) -> ChurnAnswer:
        """How likely each customer is to buy nothing within the churn horizon, and why."""
        return _answer_or_problem(lambda: predictions.answer_churn(runtime.get_runtime(), question.customer_ids))

    @bentoml.api(route="/v1/next-purchase")
    def next_purchase(self, question: CustomersQuestion, /) -> NextPurchaseAnswer:
        """When each customer comes back; at churn's horizon it is churn's own number."""
        return _answer_or_problem(
            lambda: predictions.answer_next_purchase(runtime.get_runtime(), question.customer_ids)
        )

    @bentoml.api(route="/v1/value")
    def value(self, question: CustomersQuestion, /) -> ValueAnswer:
        """What each customer is expected to spend within the horizon."""
        return _answer_or_problem(lambda: predictions.answer_value(runtime.get_runtime(), question.customer_ids))

    @bentoml.api(route="/v1/restock")
    def restock(self, question: RestockQuestion, /) -> RestockAnswer:
        """Which categories each customer will need again within so many days."""
        return _answer_or_problem(lambda: predictions.answer_restock(runtime.get_runtime(), question))

    @bentoml.api(route="/v1/similar")
    def similar(self, question: SimilarQuestion, /) -> SimilarAnswer:
        """What goes with each product, stands in for it, or is dearer of its kind.

        Of the shop's rules those hold that leave products out: exclusions, stock, least margin, and repurchase.
        """
        return _answer_or_problem(lambda: related_products.answer_related_products(runtime.get_runtime(), question))

    @bentoml.api(route="/v1/audience")
    def audience(self, question: AudienceQuestion, /) -> AudienceAnswer:
        """Which customers are likeliest to buy these products, of these categories, or to redeem this offer."""
        return _answer_or_problem(lambda: audience.answer_audience(runtime.get_runtime(), question))


def _answer_or_problem(compute: Callable[[], AnswerT]) -> AnswerT:
    """An answer, or a refusal in its place: a raised one BentoML would log and put in its own words."""
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


logging.getLogger("feast").setLevel(logging.ERROR)  # its advice about itself is not the shop's news
logging.getLogger("bentoml._internal.server.http_app").addFilter(problems.PrivacyLogFilter())
_service = cast(Any, Regulars)  # the decorator made a service of the class, which types do not tell
_service.add_asgi_middleware(GatewayMiddleware)
_service.mount_asgi_app(create_app(_openapi_document), path="/")
