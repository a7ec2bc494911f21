"""The tables of `schema.sql` as SQLAlchemy's ORM maps them, for the two peers that use it."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import JSON, BigInteger, DateTime
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Model(DeclarativeBase):
    """A table."""

    type_annotation_map = {datetime: DateTime(timezone=True), dict[str, Any]: JSON, int: BigInteger}  # noqa: RUF012


class Order(Model):
    """An accepted order and its status."""

    __tablename__ = "orders"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    created_at: Mapped[datetime]
    reference: Mapped[str | None]
    currency: Mapped[str]
    total: Mapped[int]
    status: Mapped[str]
    snapshot: Mapped[dict[str, Any]]


class TimelineEntry(Model):
    """An event in the life of an order."""

    __tablename__ = "timeline"

    order_id: Mapped[UUID] = mapped_column(primary_key=True)
    event_id: Mapped[UUID] = mapped_column(primary_key=True)
    type: Mapped[str]
    time: Mapped[datetime]


class InvoiceCounter(Model):
    """The number of invoices in a year. A transaction that takes a number locks the row until it commits."""

    __tablename__ = "invoice_counters"

    year: Mapped[int] = mapped_column(primary_key=True)
    last: Mapped[int]


class Invoice(Model):
    """The invoice of an order."""

    __tablename__ = "invoices"

    order_id: Mapped[UUID] = mapped_column(primary_key=True)
    number: Mapped[str]
    total: Mapped[int]
    issued_at: Mapped[datetime]
    snapshot: Mapped[dict[str, Any]]


class Charge(Model):
    """A charge in the payment provider's own ledger."""

    __tablename__ = "charges"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    key: Mapped[str]
    order_id: Mapped[UUID]
    amount: Mapped[int]
    currency: Mapped[str]
    payment_method: Mapped[str]
    status: Mapped[str]


class Payment(Model):
    """A captured payment."""

    __tablename__ = "payments"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    order_id: Mapped[UUID]
    provider_reference: Mapped[str]
    amount: Mapped[int]
    currency: Mapped[str]
    captured_at: Mapped[datetime]


class Shipment(Model):
    """A booked parcel."""

    __tablename__ = "shipments"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    order_id: Mapped[UUID]
    carrier: Mapped[str]
    tracking_number: Mapped[str]
    booked_at: Mapped[datetime]


class Mail(Model):
    """A sent mail. PostgreSQL sets the time."""

    __tablename__ = "mails"

    order_id: Mapped[UUID] = mapped_column(primary_key=True)
    stage: Mapped[str] = mapped_column(primary_key=True)
    recipient: Mapped[str]
    event: Mapped[dict[str, Any]]
    state: Mapped[str]
