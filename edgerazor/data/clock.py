"""The date that chat templates see: fixed once for a run, so that its rows are the same tomorrow."""

import datetime
import logging

from transformers import PreTrainedTokenizerBase

from edgerazor.data.template import ChatTemplate
from edgerazor.schemas.data import DataSection

_LOG = logging.getLogger(__name__)


def fix_date(
    section: DataSection, tokenizer: PreTrainedTokenizerBase, *, earlier: datetime.date | None = None
) -> DataSection:
    """The section with a date in it if the chat template asks for one and `data.date` does not say it.

    Args:
        earlier: the date of the run or the cache that is continued; None: today, which is said in the log.
    """
    if section.date is not None or not ChatTemplate(tokenizer).reads_the_clock:
        return section
    date = earlier or datetime.date.today()
    if earlier is None:
        _LOG.warning(
            "the chat template of %s writes the date; the rows are made with %s, and data.date can say another",
            tokenizer.name_or_path or "this tokenizer",
            date.isoformat(),
        )
    return section.model_copy(update={"date": date})
