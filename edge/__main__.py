"""`python -m edge`."""

from edge.main import main

raise SystemExit(main())
