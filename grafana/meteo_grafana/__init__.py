"""The dashboards as code: each module is one dashboard, `panels` and `queries` are the words it is written in."""
