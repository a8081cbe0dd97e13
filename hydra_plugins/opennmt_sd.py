"""Puts our configuration groups on Hydra's search path, behind a project's own.

So another Hydra project can say ``experiment=zaremba_medium`` or ``- model: awd_lstm``. Every Hydra
application in the environment imports this file: it must stay light.
"""

from hydra.core.config_search_path import ConfigSearchPath
from hydra.plugins.search_path_plugin import SearchPathPlugin

PATH = "pkg://opennmt_sd.conf"


class OpenNMTSDSearchPath(SearchPathPlugin):
    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        if all(element.path != PATH for element in search_path.get_path()):
            search_path.append("opennmt_sd", PATH)
