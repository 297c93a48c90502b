"""The page that shows what the detector hears and how sure it is: `easysed app`, and the Space of the same name.

`server.build_app` puts it together; gradio, an extra, is imported by `page` and `server` alone."""
