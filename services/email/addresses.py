"""Who an order is from and where it goes, line by line; the same for text and HTML."""

from typing import NamedTuple

from events.contracts import Address, Customer, Order, Seller


class AddressBlock(NamedTuple):
    """An address under its title."""

    title: str
    lines: list[str]


def address_blocks(order: Order) -> list[AddressBlock]:
    """The delivery address, and the billing address if it is another.

    The customer's company is named unless the parcel is for somebody else.
    """
    customer, to, billed = order.customer, order.shipping_address, order.billed_to
    recipients = _lines(to, customer, order.recipient_company)
    blocks = [AddressBlock("Delivery address", recipients)]
    if billed != to:
        payers = _lines(billed, customer, billed.company or customer.company)
        blocks.append(AddressBlock("Billing address", payers))
    return blocks


def imprint(seller: Seller | None) -> list[str]:
    """The seller as an invoice names it. Empty if the invoice names none."""
    if seller is None:
        return []
    tax_id = seller.tax_id and f"Tax ID {seller.tax_id}"
    address = _place(seller.address) if seller.address else []
    return [line for line in (seller.name, *address, tax_id, seller.registration, seller.email) if line]


def _lines(address: Address, customer: Customer, company: str | None) -> list[str]:
    name = address.name or customer.name
    people = [company, name] if company and company != name else [name]
    return people + _place(address)


def _place(address: Address) -> list[str]:
    code = address.shown_postal_code
    city = f"{code} {address.city}" if code else address.city
    return [line for line in (address.line1, address.line2, city, address.state, address.country) if line]
