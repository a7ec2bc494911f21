"""Tax ids of companies and people, checked by python-stdnum where it knows every form that a country has."""

from collections.abc import Iterator
from functools import cache
from importlib import import_module
from types import ModuleType
from typing import Final

from stdnum.exceptions import ValidationError

from services.order.card_numbers import holds_card_number

_FORMS: Final = {
    "AD": "ad.nrt",
    "AL": "al.nipt",
    "AR": "ar.cuit ar.dni",
    "AT": "at.uid at.tin",
    "AU": "au.abn au.tfn au.acn",
    "AZ": "az.voen",
    "BE": "be.vat be.nn be.bis",
    "BG": "bg.vat",
    "BR": "br.cnpj br.cpf",
    "BY": "by.unp",
    "CA": "ca.bn ca.sin",
    "CH": "ch.vat ch.uid",
    "CL": "cl.rut",
    "CN": "cn.uscc cn.ric",
    "CR": "cr.cpj cr.cpf cr.cr",
    "CY": "cy.vat",
    "CZ": "cz.dic",
    "DE": "de.vat de.idnr de.stnr",
    "DK": "dk.cvr dk.cpr",
    "DO": "do.rnc do.cedula",
    "EC": "ec.ruc ec.ci",
    "EE": "ee.kmkr ee.registrikood ee.ik",
    "ES": "es.nif",
    "FI": "fi.alv fi.hetu",
    "FR": "fr.tva fr.siren fr.siret fr.nif",
    "GB": "gb.vat gb.utr",
    "GR": "gr.vat",
    "HR": "hr.oib",
    "ID": "id.npwp id.nik",
    "IE": "ie.vat ie.pps",
    "IL": "il.idnr",
    "IN": "in_.gstin in_.pan",
    "IS": "is_.kennitala is_.vsk",
    "IT": "it.iva it.codicefiscale",
    "KE": "ke.pin",
    "KR": "kr.brn",
    "LT": "lt.pvm lt.asmens",
    "LV": "lv.pvn",
    "MC": "mc.tva",
    "ME": "me.pib",
    "MK": "mk.edb",
    "MX": "mx.rfc",
    "MZ": "mz.nuit",
    "NL": "nl.btw nl.bsn",
    "NO": "no.mva no.orgnr no.fodselsnummer",
    "NZ": "nz.ird",
    "PE": "pe.ruc pe.cui",
    "PL": "pl.nip pl.pesel",
    "PT": "pt.nif",
    "PY": "py.ruc",
    "RO": "ro.cf ro.cnp",
    "RS": "rs.pib",
    "RU": "ru.inn",
    "SE": "se.vat se.orgnr se.personnummer",
    "SI": "si.ddv",
    "SK": "sk.dph sk.rc",
    "SM": "sm.coe",
    "SN": "sn.ninea",
    "TH": "th.tin",
    "TN": "tn.mf",
    "TR": "tr.vkn tr.tckimlik",
    "TW": "tw.ubn",
    "US": "us.tin",
    "UY": "uy.rut",
    "VE": "ve.rif",
}
"""Modules of `stdnum` for the tax ids of each country's companies and people.

A country is missing if stdnum lacks a form that is usual there, because a right tax id would be refused: for
instance Colombia's without a check digit, Hungary's for use within the country, those of Japan's invoice
issuers, of people in Luxembourg, Malta and Vietnam, and those for sales taxes in Singapore and South Africa.
"""
CHECKED_COUNTRIES: Final = frozenset(_FORMS)
"""Countries whose tax ids are checked."""


class InvalidTaxId(ValueError):
    """The text has no form of a tax id of the country."""


def compact(text: str, country: str) -> str:
    """The tax id without separators, as the country writes it; unchanged for a country without a form.

    A tax id that was checked may look like a card number, as many of France's do; another may not.
    Every country takes VAT numbers of the EU's states and of Northern Ireland with their prefixes, such as
    `EL` for Greece and `XI` for Northern Ireland. A prefix that was sent is kept, and none is added.
    Raises InvalidTaxId.
    """
    prefix = text.strip()[:2].upper()
    eu_vat = _module("eu.vat")
    try:
        return str(eu_vat.validate(text))
    except ValidationError:
        pass
    for form in _forms(country):
        try:
            number = str(form.validate(text))
        except ValidationError:
            continue
        return number if prefix != country or number.startswith(country) else country + number
    if country in _FORMS or (prefix == country and country.lower() in eu_vat.MEMBER_STATES):
        raise InvalidTaxId(InvalidTaxId.__doc__)
    if holds_card_number(text):
        raise InvalidTaxId(InvalidTaxId.__doc__)
    return text


def _forms(country: str) -> Iterator[ModuleType]:
    return (_module(name) for name in _FORMS.get(country, "").split())


@cache
def _module(name: str) -> ModuleType:
    return import_module(f"stdnum.{name}")
