"""Who is asking, and what that one may do."""

import base64
import json
from dataclasses import dataclass

from blobserver.clock import ServiceClock
from blobserver.records import Account
from blobserver.sas import check_sas
from blobserver.signing import check_shared_key
from blobserver.wire import Refused, Request

_AUDIENCES = ("https://storage.azure.com",)
EVERYTHING = "racwdxyltmeopi"  # the letters of SAS permissions


@dataclass(frozen=True, slots=True)
class Grant:
    """What a request may do."""

    permissions: str
    principal: str = ""  # the object id of one that Entra ID vouches for

    def may(self, letters: str) -> bool:
        """Return whether any of the permissions in `letters` is given."""
        return any(letter in self.permissions for letter in letters)

    def require(self, letters: str) -> None:
        """Raise Refused unless one of the permissions in `letters` is given."""
        if not self.may(letters):
            raise Refused(
                403,
                "AuthorizationPermissionMismatch",
                "This request is not authorized to perform this operation using this permission.",
            )


def grant_of(request: Request, account: Account, clock: ServiceClock) -> Grant:
    """Return what `request` may do; raise Refused if nobody vouches for it."""
    if not account.firewall(request.peer):
        raise Refused(
            403,
            "AuthorizationFailure",
            "This request is not authorized to perform this operation.",
        )
    if "sig" in request.query:
        return Grant(check_sas(request, account, clock))
    authorization = request.header("Authorization")
    if authorization.startswith("Bearer "):
        return _bearer(authorization.removeprefix("Bearer "), request, account, clock)
    if authorization:
        check_shared_key(request, account, clock)
        return Grant(EVERYTHING)
    raise Refused(
        401,
        "NoAuthenticationInformation",
        "Server failed to authenticate the request. Please refer to the information in the"
        " www-authenticate header.",
        WWW_Authenticate="Bearer authorization_uri=https://login.microsoftonline.com/common"
        " resource_id=https://storage.azure.com",
    )


def _bearer(token: str, request: Request, account: Account, clock: ServiceClock) -> Grant:
    """Read an unsigned token: what Entra ID signs, a test need not."""
    if not request.is_secure:
        raise Refused(403, "AuthenticationFailed", "Bearer tokens are taken over https only.")
    try:
        part = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
        audience, expires = str(claims["aud"]).rstrip("/"), float(claims["exp"])
    except (IndexError, ValueError, KeyError, TypeError) as error:
        raise _invalid("the token cannot be read") from error
    if audience not in _AUDIENCES:
        raise _invalid("Invalid audience")
    if expires <= clock.wall().timestamp():
        raise _invalid("Lifetime validation failed. The token is expired.")
    principal = str(claims.get("oid", ""))
    return Grant(account.roles.get(principal, EVERYTHING), principal or "anonymous")


def _invalid(detail: str) -> Refused:
    return Refused(401, "InvalidAuthenticationInfo", detail)
