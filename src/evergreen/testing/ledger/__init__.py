"""What every ledger promises, as a test class to inherit from."""

from evergreen.testing.ledger.outcomes import OutcomeContract
from evergreen.testing.ledger.records import RecordContract
from evergreen.testing.ledger.samples import SampleContract
from evergreen.testing.ledger.together import TogetherContract

__all__ = ["LedgerContract"]


class LedgerContract(SampleContract, OutcomeContract, RecordContract, TogetherContract):
    """Inherit, and give a fixture `ledger` that is empty; and `ledger_factory` if another can share its data."""
