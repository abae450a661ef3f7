SELECT today, final, ledger_since FROM ({limits}) AS limits, state
