"""Puts our configuration groups on Hydra's search path, behind those of the application.

A command of ours reads its task's root and the shared one. Another Hydra project reads all of them:
it can say ``- model: awd_lstm``, or begin with a whole training: ``- opennmt_sd_lm``.

Every Hydra application in the environment imports this file: it stays light.
"""

from hydra.core.config_search_path import ConfigSearchPath
from hydra.plugins.search_path_plugin import SearchPathPlugin

PACKAGE = "pkg://opennmt_sd.conf."
TASKS, SHARED = ("lm", "tagger"), "shared"  # no two roots hold one name


class OpenNMTSDSearchPath(SearchPathPlugin):
    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        known = [element.path for element in search_path.get_path()]
        if f"{PACKAGE}benchmark" in known:
            return
        wanted = [SHARED]
        if not any(f"{PACKAGE}{task}" in known for task in TASKS):  # no command of ours
            from opennmt_sd.config import lm, tagger

            lm.register()
            tagger.register()
            wanted = [*TASKS, SHARED]
        for root in wanted:
            if f"{PACKAGE}{root}" not in known:
                search_path.append("opennmt_sd", f"{PACKAGE}{root}")
