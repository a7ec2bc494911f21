"""What a process of version 1 of the events has written, byte for byte: rows of work, and an event."""

from typing import Final
from uuid import UUID

ORDER_ID: Final = UUID("019ab000-0000-7000-8000-000000000001")
PAYMENT_ID: Final = UUID("019ab000-0000-7000-8000-000000000002")
TOTAL: Final = 4657
PAYMENT_METHOD: Final = "pm_card_visa"

_ORDER: Final = (
    b'{"id":"019ab000-0000-7000-8000-000000000001","created_at":"2026-11-22T12:00:00Z","reference":"WEB-1042",'
    b'"customer":{"name":"Ana Souza","email":"ana@example.com","locale":"pt-BR"},'
    b'"shipping_address":{"line1":"Rua Augusta 1","city":"S\xc3\xa3o Paulo",'
    b'"postal_code":"01304-001","country":"BR"},'
    b'"currency":"BRL","items":[{"sku":"MUG-01","name":"Mug","quantity":2,"unit_price":1990,"tax_rate":"0.17",'
    b'"subtotal":3980,"tax":677,"total":4657}],"subtotal":3980,"tax":677,"total":4657,'
    b'"payment_method":"pm_card_visa",'
    b'"key_hash":"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"}'
)
_INVOICE: Final = b'{"number":"2026-000001","issued_at":"2026-11-22T12:00:00Z"}'
_PAYMENT: Final = (
    b'{"id":"019ab000-0000-7000-8000-000000000002","provider":"simulated","provider_reference":"ch_1",'
    b'"amount":4657,"captured_at":"2026-11-22T12:00:00Z"}'
)
_REASON: Final = b'{"code":"destination_not_served","message":"We do not ship there.","stage":"shipment"}'

INVOICED: Final = b'{"status":"INVOICE_CREATED","order":%b,"invoice":%b}' % (_ORDER, _INVOICE)
"""`payments.snapshot`."""
PAID: Final = b'{"status":"PAYMENT_CONFIRMED","order":%b,"invoice":%b,"payment":%b}' % (
    _ORDER,
    _INVOICE,
    _PAYMENT,
)
"""`shipments.paid`."""
UNDELIVERABLE: Final = b'{"status":"SHIPMENT_ERROR","order":%b,"invoice":%b,"payment":%b,"reason":%b}' % (
    _ORDER,
    _INVOICE,
    _PAYMENT,
    _REASON,
)
"""`refunds.snapshot`."""


def event(type_: str, source: str, data: bytes) -> bytes:
    """An event about the order, alone in its message."""
    return (
        b'[{"type":"%b","id":"019ab000-0000-7000-8000-00000000000e","specversion":"1.0","source":"%b",'
        b'"subject":"019ab000-0000-7000-8000-000000000001","time":"2026-11-22T12:00:00Z",'
        b'"dataschema":"urn:orderflow:%b:1","data":%b}]'
        % (type_.encode(), source.encode(), type_.encode(), data)
    )
