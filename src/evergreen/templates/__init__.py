"""Systems that were there before Evergreen, each with its own doors, as `evergreen init --template NAME` lays them down."""
