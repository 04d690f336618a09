# SPDX-License-Identifier: GPL-3.0-or-later
"""assay with a real Sendmail: the laws, and what only Sendmail does."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mta.base import UnavailableError
from mta.laws import Laws
from mta.sendmail import Sendmail


class TestSendmail(Laws):
    kind = Sendmail
    xclient = False

    @pytest.mark.skipif(os.geteuid() != 0, reason="Sendmail checks directories only when it runs as root")
    def test_a_socket_below_a_directory_writable_by_others_is_refused(self, tmp_path: Path) -> None:
        """contrib/sendmail/assay.mc warns of it."""
        try:
            Sendmail.check()
        except UnavailableError as missing:
            pytest.skip(str(missing))
        folder = tmp_path / "open"
        folder.mkdir()
        folder.chmod(0o775)
        (folder / "assay.sock").touch()
        with (
            pytest.raises(AssertionError, match="unsafe: Group writable directory"),
            Sendmail(f"unix:{folder}/assay.sock"),
        ):
            pass
