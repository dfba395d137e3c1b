"""Who made a diff: detached signatures, in OpenSSH's formats, and whose are asked for before a diff is used.

::

    diffpack.sign("task.dpk", "~/.ssh/id_ed25519", "task.dpk.sig")
    diffpack.apply("base", "task.dpk", "out", require_signature="allowed_signers")
    who = diffpack.check_signature("task.dpk", "id_ed25519.pub")        # who.fingerprint, who.principals

Keys are `ssh-ed25519` ones, signatures those of `ssh-keygen -Y sign -n diffpack` (SSHSIG), lists of whom to trust its
allowed_signers files: people have these keys, agents and tokens that hold them, and a tool of another hand that checks
what is made here. What is signed: `message`. Needs the extra `[sign]`.
"""

from typing import TYPE_CHECKING

from diffpack.support.lazily import lazy_members

if TYPE_CHECKING:
    from diffpack.signing.checking import RequiredSignature, Signed, check_signature
    from diffpack.signing.making import sign
    from diffpack.signing.sshsig import Signature
else:  # loaded when asked for: a diff that nobody wants signed needs none of it
    __getattr__ = lazy_members(
        __name__,
        {
            "RequiredSignature": "checking",
            "Signature": "sshsig",
            "Signed": "checking",
            "check_signature": "checking",
            "sign": "making",
        },
    )

__all__ = ["RequiredSignature", "Signature", "Signed", "check_signature", "sign"]
