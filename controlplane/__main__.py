"""`python -m controlplane`."""

from controlplane.main import main

raise SystemExit(main())
