from .app import create_app as create_app
from .server import Running as Running
from .server import ServeOptions as ServeOptions
from .server import ViewOptions as ViewOptions
from .server import view as view
